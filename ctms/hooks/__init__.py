"""The plugin system: registrations, loading and validation of plugins.

Plugin authors import the public plugin API, `ctms.plugins`, and nothing from here.
"""
