"""What ships: the wheel, its metadata, the locked lists, the Makefile and the rules of import."""
