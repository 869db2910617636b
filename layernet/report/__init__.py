"""What is made for people to read: the catalogue."""
