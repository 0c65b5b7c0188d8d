"""msgd archives text messages over TCP; the echo is the receipt."""

__version__ = "1.0.0"
