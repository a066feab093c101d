CREATE TABLE IF NOT EXISTS {table}{on_cluster}
(
    user_name  String               COMMENT 'Who: the name of a user of ClickHouse',
    project_id String               COMMENT 'May read the events of this project',
    granted_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'Since when',
    granted_by String               DEFAULT currentUser() COMMENT 'Who let them'
)
ENGINE = {engine}MergeTree{replica}
ORDER BY (user_name, project_id)
COMMENT 'Which projects an analyst may read; a row lets in, and deleting it shuts out'
