"""The receiver's SQLite index, one string a migration step; wall times in ms since 1970.

Ids are unique within a device only: what one device says can not stand in another one's way.
"""

RECEIVER_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE message (            -- every envelope, once
        device TEXT NOT NULL,
        id TEXT NOT NULL,
        boot INTEGER NOT NULL,
        lane TEXT NOT NULL,
        seq INTEGER NOT NULL,
        kind TEXT NOT NULL,
        t_utc_ms INTEGER NOT NULL,    -- the device's clock
        received_utc_ms INTEGER NOT NULL,
        payload BLOB NOT NULL,
        PRIMARY KEY (device, id)
    ) WITHOUT ROWID;
    CREATE INDEX message_by_seq ON message (device, boot, lane, seq);

    CREATE TABLE event (              -- one row an event; closed never goes back to open
        device TEXT NOT NULL,
        event_id TEXT NOT NULL,
        camera TEXT NOT NULL,
        kind TEXT NOT NULL,
        rule TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
        start_utc_ms INTEGER NOT NULL,
        end_utc_ms INTEGER,
        body TEXT NOT NULL,
        PRIMARY KEY (device, event_id)
    ) WITHOUT ROWID;

    CREATE TABLE incoming (           -- a transfer that is under way
        device TEXT NOT NULL,
        fid TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,  -- of the whole file
        offer TEXT NOT NULL,          -- JSON
        have TEXT NOT NULL,           -- JSON list of [from, to): bytes that are on the disk
        updated_utc_ms INTEGER NOT NULL,
        PRIMARY KEY (device, fid)
    ) WITHOUT ROWID;

    CREATE TABLE file (               -- what is stored and signed for
        device TEXT NOT NULL,
        clip_id TEXT NOT NULL,
        name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        path TEXT NOT NULL,           -- relative to the store
        stored_utc_ms INTEGER NOT NULL,
        PRIMARY KEY (device, clip_id, name)
    ) WITHOUT ROWID;
    CREATE INDEX file_by_hash ON file (device, sha256);

    CREATE TABLE receipt (            -- one a transfer, given again on every repeated offer or done
        device TEXT NOT NULL,
        fid TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (device, fid)
    ) WITHOUT ROWID;

    CREATE TABLE rejected (           -- set aside, never acknowledged
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        utc_ms INTEGER NOT NULL,
        device TEXT NOT NULL,
        topic TEXT NOT NULL,
        reason TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE event ADD COLUMN clip TEXT;  -- JSON, once it is sealed: id, files, hashes
    """,
    """
    CREATE TABLE lane_mark (          -- every number up to this one is here, or in a gap
        device TEXT NOT NULL,
        boot INTEGER NOT NULL,
        lane TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (device, boot, lane)
    ) WITHOUT ROWID;

    CREATE TABLE gap (                -- numbers that have not come; late ones take them out again
        device TEXT NOT NULL,
        boot INTEGER NOT NULL,
        lane TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        since_utc_ms INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'told')),
        reason TEXT NOT NULL DEFAULT '',  -- in the device's words, once it has told
        record TEXT,                  -- its signed record, JSON; null: its state/outbox said so
        asks INTEGER NOT NULL DEFAULT 0,  -- commands to replay it so far
        ask_utc_ms INTEGER NOT NULL,  -- the next one
        PRIMARY KEY (device, boot, lane, first_seq)
    ) WITHOUT ROWID;
    CREATE INDEX gap_by_ask ON gap (state, ask_utc_ms);

    INSERT INTO lane_mark SELECT device, boot, lane, max(seq) FROM message GROUP BY 1, 2, 3;
    INSERT INTO gap (device, boot, lane, first_seq, last_seq, since_utc_ms, state, ask_utc_ms)
        SELECT device, boot, lane, before + 1, seq - 1, received_utc_ms, 'open', received_utc_ms
        FROM (SELECT device, boot, lane, seq, received_utc_ms, lag(seq, 1, 0)
              OVER (PARTITION BY device, boot, lane ORDER BY seq) AS before FROM message)
        WHERE seq > before + 1;
    """,
    """
    CREATE TABLE adjustment (         -- the device's word on stamps of a clock that was not right
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        boot INTEGER NOT NULL,
        from_mono_ms INTEGER NOT NULL,
        to_mono_ms INTEGER NOT NULL,  -- not included
        offset_ms INTEGER NOT NULL,   -- true UTC minus mono_ms
        error_ms INTEGER NOT NULL,
        source TEXT NOT NULL
    );
    CREATE INDEX adjustment_by_boot ON adjustment (device, boot);

    ALTER TABLE message ADD COLUMN mono_ms INTEGER;          -- the device's, within a boot
    ALTER TABLE message ADD COLUMN adjusted_utc_ms INTEGER;  -- when it was really made
    ALTER TABLE message ADD COLUMN adjusted_error_ms INTEGER;
    ALTER TABLE event ADD COLUMN shift_ms INTEGER;           -- to be added to its times
    UPDATE message SET mono_ms = json_extract(CAST(payload AS TEXT), '$.mono_ms');
    """,
    """
    ALTER TABLE gap ADD COLUMN marks BLOB;  -- a bit for each number that is one of it; null: all
    CREATE INDEX gap_by_end ON gap (device, boot, lane, last_seq);
    """,
    """
    CREATE TABLE lost_file (          -- in the device's words: it will not come, and why
        device TEXT NOT NULL,
        fid TEXT NOT NULL,
        clip_id TEXT NOT NULL,
        name TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        why TEXT NOT NULL,
        detail TEXT NOT NULL,
        event_ids TEXT NOT NULL,      -- JSON list
        told_utc_ms INTEGER NOT NULL, -- the device's clock
        PRIMARY KEY (device, fid)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE bulk (               -- a file whose parts go to an S3 server
        device TEXT NOT NULL,
        fid TEXT NOT NULL,
        key TEXT NOT NULL,            -- of the object that it becomes
        upload_id TEXT NOT NULL,
        offer TEXT NOT NULL,          -- JSON
        updated_utc_ms INTEGER NOT NULL,
        PRIMARY KEY (device, fid)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE store_word (         -- one row: which store this is, told to every device
        id TEXT PRIMARY KEY,
        begun_utc_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)
