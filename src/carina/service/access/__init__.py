"""Who may do what on the node's pages and interfaces: accounts, sessions, tokens, and one gate before every route."""
