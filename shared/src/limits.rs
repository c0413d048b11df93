//! Every limit of the wire, in one place. At a limit the sender is told; nothing is dropped in silence.

/// Largest MQTT payload either way, in bytes: an enrolment answer with a catalogue fits, and a hostile
/// peer cannot make the other side hold more.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Largest batch an agent cuts, in bytes: crosses a weak link in one go.
pub const BATCH_BYTES_MAX: usize = 16 * 1024;

/// Most entries in one batch.
pub const BATCH_ENTRIES_MAX: usize = 1024;

/// Largest body of a batch once decompressed, in bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Most values in one batch.
pub const BATCH_VALUES_MAX: usize = 128 * 1024;

/// Most lines of a form, so most values of a report.
pub const REPORT_VALUES_MAX: usize = 512;

/// The largest value: 2^53 − 1, exact in every program that reads JSON.
pub const VALUE_MAX: u64 = (1 << 53) - 1;

/// Most foreign versions one report may name.
pub const REPLACES_MAX: usize = 64;

/// Longest staff code, in bytes.
pub const PERSON_BYTES_MAX: usize = 32;

/// Most ranges a receipt shows for one life.
pub const RECEIPT_RANGES_MAX: usize = 1024;

/// Most refused and most parked entries a receipt lists for one life.
pub const RECEIPT_REASONS_MAX: usize = 512;

/// Most lives a receipt or a first entry speaks of.
pub const LIVES_MAX: usize = 64;

/// Most facilities in one context: a grant that names them all, with a catalogue, fits into one message.
pub const CONTEXT_FACILITIES_MAX: usize = 1024;

/// Largest catalogue, in bytes of TOML.
pub const CATALOGUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Largest bundle file, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an MQTT packet may hold besides its payload, in bytes: our longest topic (25), its length,
/// a packet number and the fixed header, with room to spare.
pub const PACKET_OVERHEAD_BYTES_MAX: usize = 64;

/// Largest MQTT packet either way, in bytes.
pub const PACKET_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES_MAX;

/// Largest first packet of a connection (CONNECT), in bytes.
pub const PACKET_CONNECT_BYTES_MAX: usize = 4 * 1024;

/// How often an idle agent says that it is there, in seconds.
pub const KEEP_ALIVE_S: u16 = 60;

/// How long an agent waits for TCP, TLS and CONNACK together, in seconds: a satellite link has a round
/// trip of 2 s and loses packets.
pub const CONNECT_TIMEOUT_S: u64 = 45;
