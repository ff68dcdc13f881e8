-- Durable channels. `epoch` names the unbroken history, `top` is the newest offset.
CREATE TABLE channels (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  epoch TEXT NOT NULL,
  top INTEGER NOT NULL
);

-- Their entries. `data` is absent in tombstones. The author's key is kept for as long as the entry is.
CREATE TABLE log (
  id INTEGER PRIMARY KEY,
  channel INTEGER NOT NULL,
  offset INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  data BLOB,
  info TEXT,
  tags TEXT,
  key_user TEXT,
  key TEXT,
  UNIQUE (channel, offset)
);
CREATE UNIQUE INDEX log_key ON log (channel, key_user, key) WHERE key IS NOT NULL;

-- Answers of calls that may be repeated.
CREATE TABLE answers (
  id INTEGER PRIMARY KEY,
  user TEXT NOT NULL,
  method TEXT NOT NULL,
  key TEXT NOT NULL,
  answer BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  UNIQUE (user, method, key)
);
CREATE INDEX answers_age ON answers (created_at);

CREATE TABLE stories (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  owner TEXT NOT NULL,
  branch TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  active_at INTEGER NOT NULL,
  turns INTEGER NOT NULL,
  members INTEGER NOT NULL
);

CREATE TABLE members (
  seq INTEGER PRIMARY KEY,
  story TEXT NOT NULL,
  user TEXT NOT NULL,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  joined_at INTEGER NOT NULL,
  UNIQUE (user, story)
);
CREATE INDEX members_story ON members (story, seq);

-- `from_number` is the number of the turn `from_turn`: how much of the parent's path belongs to this one.
CREATE TABLE branches (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  story TEXT NOT NULL,
  parent TEXT,
  from_turn TEXT,
  from_number INTEGER NOT NULL,
  choice TEXT,
  label TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE INDEX branches_story ON branches (story, seq);

CREATE TABLE turns (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  story TEXT NOT NULL,
  branch TEXT NOT NULL,
  number INTEGER NOT NULL,
  author_kind TEXT NOT NULL,
  author_id TEXT NOT NULL,
  author_name TEXT NOT NULL,
  kind TEXT NOT NULL,
  text TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  generation TEXT,
  attempt INTEGER,
  status TEXT,
  label TEXT,
  UNIQUE (branch, number)
);
-- A generation makes one turn at most, whatever happens.
CREATE UNIQUE INDEX turns_generation ON turns (generation) WHERE generation IS NOT NULL;

CREATE TABLE choices (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  story TEXT NOT NULL,
  turn TEXT NOT NULL,
  number INTEGER NOT NULL,
  label TEXT NOT NULL,
  branch TEXT,
  UNIQUE (turn, number)
);

CREATE TABLE invites (
  seq INTEGER PRIMARY KEY,
  code TEXT NOT NULL UNIQUE,
  story TEXT NOT NULL,
  role TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  uses INTEGER NOT NULL
);
CREATE INDEX invites_story ON invites (story, seq);

-- Generations. `attempt` fences every effect of a worker; `deadline` is the end of its lease.
CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  story TEXT NOT NULL,
  branch TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  agent_name TEXT NOT NULL,
  status TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  by_user TEXT NOT NULL,
  requested_at INTEGER NOT NULL,
  after_turn TEXT,
  reason_code TEXT,
  reason_message TEXT,
  instruction TEXT,
  cancel INTEGER NOT NULL,
  owner TEXT,
  deadline INTEGER,
  usage TEXT,
  ended_at INTEGER
);
-- One open generation per branch, and never two.
CREATE UNIQUE INDEX jobs_branch_open ON jobs (branch) WHERE status IN ('queued', 'running');
-- What claims, sweeps and counts look at: open rows alone, oldest first.
CREATE INDEX jobs_open ON jobs (seq) WHERE status IN ('queued', 'running');
CREATE INDEX jobs_story_open ON jobs (story, seq) WHERE status IN ('queued', 'running');
CREATE INDEX jobs_branch ON jobs (branch, seq);

CREATE TABLE users (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  guest INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL
);

CREATE TABLE secrets (
  name TEXT NOT NULL UNIQUE,
  value BLOB NOT NULL
);
