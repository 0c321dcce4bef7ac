"""What each request becomes: a generator of calls. A new way of asking is one file here."""
