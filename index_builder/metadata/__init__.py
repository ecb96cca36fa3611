"""What a pool says of its pictures: rows of metadata, columns of others' tables, predicates over them."""
