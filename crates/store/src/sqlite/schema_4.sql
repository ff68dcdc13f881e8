-- Orders to the connections of all nodes, for as long as a node may have missed them.
CREATE TABLE orders (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX orders_at ON orders (at);
