"""Who may do what from the page: accounts, sessions, roles, changes of the configuration; all of it the service's."""
