"""The plugins that come with CTMS. They import only the public plugin API, `ctms.plugins`, like all others."""
