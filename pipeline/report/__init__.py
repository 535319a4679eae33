"""The run report for people: the page, the tables, the charts."""
