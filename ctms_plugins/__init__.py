"""The plugins that come with CTMS. They enter by the front door, `ctms.plugins`, like everybody's."""
