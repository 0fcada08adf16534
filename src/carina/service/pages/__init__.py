"""The node's own pages: worklist, one job, the REST interface as a page; rendered here, escaped by default."""
