"""How plugins extend the service: what they may register, how they are found, loaded and checked.

Plugin authors import `ctms.plugins`, the front door, and nothing from here.
"""
