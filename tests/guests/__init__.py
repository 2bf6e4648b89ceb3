"""Machines with a real systemd, made by debootstrap and booted by systemd-nspawn.

`install.py` makes once what they are made of; `machine.py` boots them on a network of their own.
"""
