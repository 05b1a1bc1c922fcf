"""From files on disk to the domain's models, with errors that lead to the line to edit."""
