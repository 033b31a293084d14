"""The device's SQLite schema: one string a migration step, every column explained.

Wall times are nanoseconds since 1970 (`_utc_ns`). Ids given by the clock are 32 hex digits.
A step, once released, is never edited: a change is a new step at the end.
"""

DEVICE_MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (               -- small facts of this box
        key TEXT PRIMARY KEY,         -- boot: how often the agent has started
        value TEXT NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE segment (            -- the row comes before the first byte of its file
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        camera TEXT NOT NULL,
        run TEXT NOT NULL,            -- unbroken session of the source
        path TEXT NOT NULL UNIQUE,    -- relative to the state directory
        state TEXT NOT NULL CHECK (state IN ('open', 'closed', 'recovered', 'damaged')),
        start_utc_ns INTEGER NOT NULL,
        end_utc_ns INTEGER NOT NULL,  -- of the last packet; equals start while open
        first_dts INTEGER NOT NULL,   -- of the stream; the file starts at 0
        last_dts INTEGER NOT NULL,
        time_base_num INTEGER NOT NULL,
        time_base_den INTEGER NOT NULL,
        camera_offset_ns INTEGER,     -- camera clock minus arrival; null: it sends no time
        codec TEXT NOT NULL,
        width_px INTEGER NOT NULL,
        height_px INTEGER NOT NULL,
        extradata BLOB NOT NULL,
        packets INTEGER NOT NULL DEFAULT 0,
        size_bytes INTEGER NOT NULL DEFAULT 0,
        sha256 TEXT NOT NULL DEFAULT ''  -- of the closed file; empty while open
    );
    CREATE INDEX segment_by_time ON segment (camera, start_utc_ns);

    CREATE TABLE gap (                -- time that was not recorded, and why
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        camera TEXT NOT NULL,
        from_utc_ns INTEGER NOT NULL,
        to_utc_ns INTEGER NOT NULL,
        packets INTEGER NOT NULL,     -- dropped ones, where they are known
        reason TEXT NOT NULL
    );
    CREATE INDEX gap_by_time ON gap (camera, from_utc_ns);

    CREATE TABLE event (
        id TEXT PRIMARY KEY,          -- given once by the clock
        camera TEXT NOT NULL,
        kind TEXT NOT NULL,
        rule TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'closed')),
        start_utc_ns INTEGER NOT NULL,
        end_utc_ns INTEGER,           -- null while open
        body TEXT NOT NULL            -- the whole event as the analysis said it, JSON
    ) WITHOUT ROWID;
    CREATE INDEX event_by_time ON event (camera, start_utc_ns);

    CREATE TABLE clip (
        id TEXT PRIMARY KEY,
        event_id TEXT NOT NULL UNIQUE REFERENCES event (id),
        camera TEXT NOT NULL,
        start_utc_ns INTEGER NOT NULL,  -- wanted span, pre- and post-roll included
        end_utc_ns INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('wanted', 'sealed', 'receipted', 'empty')),
        snapshot TEXT NOT NULL DEFAULT '',  -- spool file, relative to the state directory
        track_path TEXT NOT NULL DEFAULT '[]',  -- JSON list of [utc_ms, x, y], the object's foot
        path TEXT NOT NULL DEFAULT '',      -- folder of the sealed clip, relative
        missing_ms INTEGER NOT NULL DEFAULT 0,  -- wanted but not recorded
        reason TEXT NOT NULL DEFAULT ''     -- why it is empty or incomplete
    ) WITHOUT ROWID;
    CREATE INDEX clip_by_state ON clip (state, end_utc_ns);

    CREATE TABLE outbox (             -- AUTOINCREMENT: a freed id never comes back
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lane TEXT NOT NULL CHECK (lane IN ('alarm', 'state', 'telemetry', 'backfill', 'file')),
        message_id TEXT NOT NULL UNIQUE,  -- the same on every resend
        topic TEXT NOT NULL,
        payload BLOB NOT NULL,
        created_utc_ns INTEGER NOT NULL,
        boot INTEGER NOT NULL,        -- start of the agent that made it
        created_mono_ns INTEGER NOT NULL,  -- comparable within one boot only
        needs_receipt INTEGER NOT NULL DEFAULT 0,
        is_retained INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0,
        quarantine TEXT               -- why it was set aside; null: to be sent
    );
    CREATE INDEX outbox_by_lane ON outbox (quarantine, lane, id);

    CREATE TABLE transfer (           -- one file towards the centre
        fid TEXT PRIMARY KEY,
        clip_id TEXT NOT NULL,
        path TEXT NOT NULL,           -- relative to the state directory
        name TEXT NOT NULL,           -- as in the manifest
        size_bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        leaf_root TEXT NOT NULL,
        manifest TEXT NOT NULL,       -- the signed envelope, JSON
        event_ids TEXT NOT NULL,      -- JSON list
        state TEXT NOT NULL CHECK (state IN ('waiting', 'receipted', 'refused')),
        created_utc_ns INTEGER NOT NULL,
        reason TEXT NOT NULL DEFAULT '',  -- why it was refused
        receipt TEXT                  -- the centre's signed receipt, JSON
    ) WITHOUT ROWID;
    CREATE INDEX transfer_by_state ON transfer (state, created_utc_ns);

    CREATE TABLE custody (            -- append-only, each row holds the hash of the one before
        seq INTEGER PRIMARY KEY,      -- from 1, without holes
        utc_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,        -- what it is about: a clip, a file, the store
        detail TEXT NOT NULL,         -- canonical JSON
        previous TEXT NOT NULL,       -- hash of row seq-1; 64 zeros for the first
        hash TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE segment ADD COLUMN folder TEXT NOT NULL DEFAULT '';  -- its path is relative to it

    CREATE TABLE folder (             -- where segments lie; '' is the state directory
        id TEXT PRIMARY KEY,          -- on the paper that lies in it
        path TEXT NOT NULL,           -- where it was seen last
        is_own_disk INTEGER NOT NULL, -- another file system than the state directory's
        created_utc_ns INTEGER NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE hold (               -- recordings that stay until somebody lets them go
        id TEXT PRIMARY KEY,
        camera TEXT NOT NULL,
        start_utc_ns INTEGER NOT NULL,
        end_utc_ns INTEGER NOT NULL,
        reason TEXT NOT NULL,
        created_utc_ns INTEGER NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE garbage (            -- files whose rows are gone: the loop is deleting them
        folder TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (folder, path)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE removed (            -- numbers whose messages left the outbox unsent
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        boot INTEGER NOT NULL,
        lane TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL     -- included
    );
    CREATE INDEX removed_by_seq ON removed (boot, lane, last_seq);

    CREATE TABLE command (            -- what the centre told this box to do; each id once
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        command_id TEXT NOT NULL UNIQUE,
        word TEXT NOT NULL,
        utc_ns INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('done', 'refused')),
        detail TEXT NOT NULL
    );
    """,
    """
    ALTER TABLE hold ADD COLUMN placed_by TEXT NOT NULL DEFAULT '';  -- who asked for it

    CREATE TABLE pin (                -- clips that stay here with or without their receipts
        clip_id TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        placed_by TEXT NOT NULL,
        created_utc_ns INTEGER NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE clip_next (          -- as before, with two states more
        id TEXT PRIMARY KEY,
        event_id TEXT NOT NULL UNIQUE REFERENCES event (id),
        camera TEXT NOT NULL,
        start_utc_ns INTEGER NOT NULL,
        end_utc_ns INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN
            ('wanted', 'sealed', 'receipted', 'empty', 'refused', 'deleted')),
        snapshot TEXT NOT NULL DEFAULT '',
        track_path TEXT NOT NULL DEFAULT '[]',
        path TEXT NOT NULL DEFAULT '',
        missing_ms INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',    -- why it is empty, incomplete or deleted
        refused TEXT NOT NULL DEFAULT ''    -- why it has no video: there was no room for it
    ) WITHOUT ROWID;
    INSERT INTO clip_next SELECT id, event_id, camera, start_utc_ns, end_utc_ns, state, snapshot,
        track_path, path, missing_ms, reason, '' FROM clip;
    DROP TABLE clip;
    ALTER TABLE clip_next RENAME TO clip;
    CREATE INDEX clip_by_state ON clip (state, end_utc_ns);
    CREATE INDEX transfer_by_clip ON transfer (clip_id);
    """,
    """
    ALTER TABLE removed ADD COLUMN marks BLOB;  -- a bit for each that was; null: all were
    ALTER TABLE removed ADD COLUMN reason TEXT NOT NULL DEFAULT 'evicted';
    """,
    """
    ALTER TABLE transfer ADD COLUMN is_final INTEGER NOT NULL DEFAULT 0;  -- refused for good
    """,
    """
    ALTER TABLE hold ADD COLUMN via TEXT NOT NULL DEFAULT '';  -- a command of the centre, a user
    """,
    """
    ALTER TABLE command ADD COLUMN issued_utc_ms INTEGER NOT NULL DEFAULT 0;  -- the centre's clock
    """,
    """
    CREATE TABLE past_receipt (       -- for files that went again because the centre lost its store
        fid TEXT NOT NULL,
        store TEXT NOT NULL,          -- the one that was lost
        receipt TEXT NOT NULL,        -- signed, JSON: the centre had it then
        PRIMARY KEY (fid, store)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE dock_slot (          -- written before what it says is done
        slot TEXT PRIMARY KEY,
        state TEXT NOT NULL,          -- agent/docking/states.py
        code TEXT NOT NULL DEFAULT '',        -- why a technician is called
        session_id TEXT NOT NULL DEFAULT '',  -- empty: no camera
        plug TEXT NOT NULL DEFAULT '',        -- which plugging-in it is about
        since_utc_ns INTEGER NOT NULL,
        detail TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;

    CREATE TABLE dock_session (       -- one camera in one slot, from docking to taking
        id TEXT PRIMARY KEY,
        slot TEXT NOT NULL,
        camera TEXT NOT NULL DEFAULT '',      -- its serial as a name; empty: not known yet
        serial TEXT NOT NULL DEFAULT '',      -- as the camera wrote it
        model TEXT NOT NULL DEFAULT '',
        firmware TEXT NOT NULL DEFAULT '',
        usb_id TEXT NOT NULL DEFAULT '',
        officer TEXT NOT NULL DEFAULT '',
        officer_source TEXT NOT NULL DEFAULT 'unknown'
            CHECK (officer_source IN ('assigned', 'camera', 'badge', 'unknown')),
        started_utc_ns INTEGER NOT NULL,
        ended_utc_ns INTEGER,                 -- null while it hangs
        clock_offset_ms INTEGER,              -- before the clock was set; null: not told
        clock_rtt_ms INTEGER,
        battery_percent INTEGER,
        quarantine TEXT NOT NULL DEFAULT '',  -- why nothing of it is wiped; empty: nothing wrong
        marks TEXT NOT NULL DEFAULT '[]',     -- JSON list: names that the officer marked
        ignored TEXT NOT NULL DEFAULT '[]',   -- JSON: [{name, reason}] of what was not taken
        sealed_utc_ns INTEGER,                -- null: no signed list of it yet
        previous_sha256 TEXT NOT NULL DEFAULT '',  -- of the list signed before, of this dock
        manifest_sha256 TEXT NOT NULL DEFAULT ''   -- of the signed list
    ) WITHOUT ROWID;
    CREATE INDEX dock_session_by_camera ON dock_session (camera, started_utc_ns);

    CREATE TABLE footage (            -- one file of a camera
        id TEXT PRIMARY KEY,          -- the hand-over's, `clip_id` of its transfers
        session_id TEXT NOT NULL,     -- in which it was found first
        seen_session_id TEXT NOT NULL,        -- in which it was seen last
        camera TEXT NOT NULL,
        name TEXT NOT NULL,           -- path on the camera, as data (agent/docking/names.py)
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,    -- as the camera's file system tells
        is_marked INTEGER NOT NULL DEFAULT 0,
        here TEXT NOT NULL DEFAULT 'no'       -- on the dock
            CHECK (here IN ('no', 'sealed', 'receipted', 'deleted')),
        there TEXT NOT NULL DEFAULT 'yes'     -- on the camera
            CHECK (there IN ('yes', 'wiping', 'wiped', 'gone')),
        kept_because TEXT NOT NULL DEFAULT '',  -- why it will not be wiped
        sha256 TEXT NOT NULL DEFAULT '',
        path TEXT NOT NULL DEFAULT '',        -- hand-over's folder, relative to the state directory
        media_type TEXT NOT NULL DEFAULT '',
        duration_ms INTEGER,                  -- null: not known
        is_playable INTEGER,                  -- null: not looked at yet
        flags TEXT NOT NULL DEFAULT '[]',     -- JSON list: partial, zero_tail, unplayable, …
        derived_from TEXT NOT NULL DEFAULT '',  -- id of the original; such a file was on no camera
        same_as TEXT NOT NULL DEFAULT '',     -- id of another one with the very same bytes
        category TEXT NOT NULL DEFAULT 'unclassified',
        incident TEXT NOT NULL DEFAULT '',
        note TEXT NOT NULL DEFAULT '',
        tagged_by TEXT NOT NULL DEFAULT '',
        sealed_utc_ns INTEGER,
        receipted_utc_ns INTEGER,
        wiped_utc_ns INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX footage_by_camera ON footage (camera, there, here);
    CREATE INDEX footage_by_session ON footage (session_id);
    CREATE INDEX footage_by_seen ON footage (seen_session_id);
    CREATE INDEX footage_by_hash ON footage (camera, sha256);

    CREATE TABLE dock_assignment (    -- which officer carries which camera
        camera TEXT PRIMARY KEY,
        officer TEXT NOT NULL,
        source TEXT NOT NULL CHECK (source IN ('assigned', 'camera', 'badge')),
        since_utc_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    """,
)
