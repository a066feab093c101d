CREATE OR REPLACE VIEW {table}{on_cluster} AS
-- An alias is not in the star.
SELECT *, words FROM audit_events
COMMENT 'The events that whoever asks may read; all of them where ClickHouse does not manage access'
