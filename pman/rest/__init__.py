"""REST under `/api/v2`: a thin, documented face of the actions. Knows no sockets and no threads."""
