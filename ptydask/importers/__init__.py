"""Studies that other programs made, turned into results files. One package a program."""
