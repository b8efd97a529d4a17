"""Other people's methods, one file each."""
