"""What is generated from the commands and the records: man pages, completions, tables.

`python -m toolroll.docs` writes it into the source tree, `--check` says what there is not up to date.
The output depends on nothing but the source and click's completion scripts: not on the terminal, the
locale or the day.
"""
