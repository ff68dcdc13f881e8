-- Logins that were logged out, for as long as they would have lasted.
CREATE TABLE logouts (
  seq INTEGER PRIMARY KEY,
  user TEXT NOT NULL,
  issued_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  UNIQUE (user, issued_at)
);
CREATE INDEX logouts_expires_at ON logouts (expires_at);
