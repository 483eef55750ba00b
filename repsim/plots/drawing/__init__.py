"""From prepared data to Matplotlib figures, one file per kind. Nothing else imports Matplotlib."""
