"""Text with holes in it: references and placeholders, and the JSON values that fill them.

Whatever a template finds is data. It is looked up by name or place, copied as the bytes it was
written in, and never read again for further holes; nothing in it can run.
"""
