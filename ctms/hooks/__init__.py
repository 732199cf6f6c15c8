"""How plugins extend the service: what they may register, how they are found, loaded and checked.

Plugin authors import the public plugin API, `ctms.plugins`, and nothing from here.
"""
