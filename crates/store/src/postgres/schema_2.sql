-- The newest version that was published to a channel, as the bits of an unsigned number, and the count that it belongs to.
ALTER TABLE talewire.channels ADD COLUMN version BIGINT;
ALTER TABLE talewire.channels ADD COLUMN version_epoch TEXT;
