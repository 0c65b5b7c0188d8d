"""The configuration: one table of options, their values, the YAML file; and `msgd make-tls`, which
makes the files that its section tls names.

No message comes through here. Who needs an option is told its value; nothing here acts on one.
"""
