"""Smaller shapes of language models on a menu with bits: what they lose, and what a row can have.

`networks` walks networks of smaller shapes beside the plain one. Where blocks may differ, `free` says what they lose
and `joint` what a row can have; where all blocks have one shape, as plain files hold them, `even` and `one_shape` do.
`singles` is what a row can have by itself, whatever the shapes. Who chooses among them is `choosing.py`, beside this
folder; channels of image models are `channels.py` and `trunk.py` there.
"""
