"""The bundled plugins. They import only the public plugin API, `ctms.plugins`, like all others."""
