"""Stand-in data sets that need no download, loaded by name; nothing else imports them."""
