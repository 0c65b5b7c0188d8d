"""The configuration: one table of options, their values, and the YAML file.

No message comes through here. Who needs an option is told its value; nothing here acts on one.
"""
