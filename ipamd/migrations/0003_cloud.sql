-- The node's ENIs as EC2 and our own changes left them last, as JSON. A start serves pods from them before EC2 answers.
CREATE TABLE interfaces (
    eni  TEXT NOT NULL PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
