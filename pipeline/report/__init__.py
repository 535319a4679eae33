"""What people read: the page, the tables, the charts."""
