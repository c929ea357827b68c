//! What a client may send that no library sends, record by record: it ends in an alert or in silence, for that
//! client only.

use std::sync::Arc;

use nonforker::Limits;
use rustls::{
    ALL_VERSIONS, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
    version::{TLS12, TLS13},
};

use crate::{
    client::Client,
    harness::{on_every_driver, wait_until},
    tls::{NAME, connect, guarded},
    tls_client::{Authority, TlsClient},
};

const CHANGE: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// The alerts that are expected, by their numbers.
const UNEXPECTED_MESSAGE: Option<u8> = Some(10);
const HANDSHAKE_FAILURE: Option<u8> = Some(40);
const ILLEGAL_PARAMETER: Option<u8> = Some(47);
const DECODE_ERROR: Option<u8> = Some(50);
/// No alert, or one that is encrypted, as it comes behind our part of the handshake.
const THE_END: Option<u8> = None;

fn record_of(version: u16, kind: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = u16::try_from(body.len()).expect("it fits a record");
    [&[kind][..], &version.to_be_bytes(), &length.to_be_bytes(), body].concat()
}

fn record(kind: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    record_of(0x0303, kind, body)
}

/// A hello for TLS 1.2 with these parts, each with its length before it.
fn hello(session: &[u8], suites: &[u8], compression: &[u8], extensions: &[u8]) -> Vec<u8> {
    let short = |bytes: &[u8]| u8::try_from(bytes.len()).expect("it is short");
    let long = |bytes: &[u8]| u16::try_from(bytes.len()).expect("it is short").to_be_bytes();
    let mut body = vec![3, 3];
    body.extend([5; 32]);
    body.push(short(session));
    body.extend(session);
    body.extend(long(suites));
    body.extend(suites);
    body.push(short(compression));
    body.extend(compression);
    body.extend(long(extensions));
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(long(&body));
    message.extend(body);
    record(HANDSHAKE, message)
}

/// What is sent, and how it ends. `good` is the record of a hello that a client of TLS 1.3 would send.
fn cases(good: &[u8]) -> Vec<(&'static str, Vec<u8>, Option<u8>)> {
    const SUITES: &[u8] = &[0xc0, 0x2b, 0xc0, 0x2f];
    /// That which names groups.
    const GROUPS: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 29];
    let flood = |record: Vec<u8>| record.repeat(3000);
    let behind = |rest: Vec<u8>| [good, &rest].concat();
    let older = [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 16][..], &[1; 37]].concat();
    let too_long = [&[1][..], &[0; 17_000]].concat();
    let message_without_end = [&[1, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    vec![
        ("an empty record of a handshake", record(HANDSHAKE, ""), DECODE_ERROR),
        ("empty records", flood(record(HANDSHAKE, "")), DECODE_ERROR),
        ("a record that is too long", record(HANDSHAKE, too_long), DECODE_ERROR),
        ("one behind a hello", behind(record(DATA, [0; 16_384 + 257])), THE_END),
        ("a version that is none", record_of(0x0909, HANDSHAKE, &good[5..]), DECODE_ERROR),
        ("two hellos", behind(good.to_vec()), THE_END),
        ("a change of keys first", [&record(CHANGE, [1]), good].concat(), UNEXPECTED_MESSAGE),
        ("changes of keys", flood(record(CHANGE, [1])), UNEXPECTED_MESSAGE),
        ("changes of keys behind a hello", behind(flood(record(CHANGE, [1]))), THE_END),
        ("a change that is none", behind(record(CHANGE, [2])), THE_END),
        ("warnings", flood(record(ALERT, [1, 90])), THE_END),
        ("warnings behind a hello", behind(flood(record(ALERT, [1, 90]))), THE_END),
        ("a fatal alert", record(ALERT, [2, 40]), THE_END),
        ("an alert that is too long", record(ALERT, [1, 0, 0, 0]), DECODE_ERROR),
        ("data first", record(DATA, "a line\n"), UNEXPECTED_MESSAGE),
        ("data before the end of the handshake", behind(record(DATA, [b'\n'; 60])), THE_END),
        ("a kind that is none", record(99, "abc"), DECODE_ERROR),
        ("a heartbeat", record(24, [1, 0x40, 0]), DECODE_ERROR),
        ("a hello of SSL 2", older, DECODE_ERROR),
        ("a long session id", hello(&[7; 33], SUITES, &[0], GROUPS), DECODE_ERROR),
        ("the longest session id", hello(&[7; 255], SUITES, &[0], GROUPS), DECODE_ERROR),
        ("no extensions", hello(&[], SUITES, &[0], &[]), HANDSHAKE_FAILURE),
        ("an extension twice", hello(&[], SUITES, &[0], &GROUPS.repeat(2)), ILLEGAL_PARAMETER),
        ("half an extension", hello(&[], SUITES, &[0], &[0, 10, 0xff, 0xff, 0]), DECODE_ERROR),
        ("no suites", hello(&[], &[], &[0], GROUPS), DECODE_ERROR),
        ("compression", hello(&[], SUITES, &[1], GROUPS), ILLEGAL_PARAMETER),
        ("16 MiB of hello", record(HANDSHAKE, message_without_end).repeat(5), THE_END),
        (
            "a finish first",
            record(HANDSHAKE, [&[20, 0, 0, 12][..], &[0; 12]].concat()),
            UNEXPECTED_MESSAGE,
        ),
        ("new keys first", record(HANDSHAKE, [24, 0, 0, 1, 1]), UNEXPECTED_MESSAGE),
        ("new keys behind a hello", behind(record(HANDSHAKE, [24, 0, 0, 1, 1])), THE_END),
        ("a call for a hello", record(HANDSHAKE, [0, 0, 0, 0]), UNEXPECTED_MESSAGE),
    ]
}

#[test]
fn records_that_no_library_sends_end_their_connection_and_no_other() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let config = Arc::new(authority.client(ALL_VERSIONS, None));
        let mut other = connect(&server, &config);
        let good = other.records();
        other.raw.send(&good);
        assert_eq!(other.ask("x"), "x");
        while told.try_recv().is_ok() {}
        let refused = server.stats().refused;
        let cases = cases(&good);
        let count = cases.len();
        for (number, (what, bytes, alert)) in (1..).zip(cases) {
            let mut client = Client::connect(server.address());
            // It may have been closed before it has sent all.
            let _ = client.try_send(&bytes);
            wait_until("it is refused", || server.stats().refused >= refused + number);
            client.half_close();
            let answer = client.try_rest();
            if let Some(alert) = alert {
                let answer = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(answer, [&[ALERT, 3, 3, 0, 2, 2][..], &[alert]].concat(), "{what}");
            } else if let Ok(answer) = answer {
                assert_ne!(answer.first(), Some(&ALERT), "{what}");
            }
            assert_eq!(other.ask(what), what, "others are served");
        }
        assert!(server.log.about("TLS").len() <= count, "a line each at most");
        assert!(told.try_iter().all(|what| what.starts_with("frame ")), "only of those others");
    });
}

/// A client behind its handshake that seals records of all kinds, with the keys of the library.
struct Sealer {
    raw: Client,
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
}

impl Sealer {
    fn of(client: TlsClient) -> Self {
        let suite = client.tls.negotiated_cipher_suite().expect("the handshake is done");
        let raw = client.raw;
        let secrets = client.tls.dangerous_extract_secrets().expect("it is set up for that");
        let (number, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else {
            panic!("the server prefers another suite");
        };
        let encrypter = match (suite.tls13(), suite) {
            (Some(suite), _) => suite.aead_alg.encrypter(key, iv),
            (None, rustls::SupportedCipherSuite::Tls12(suite)) => {
                let (fixed, explicit) = iv.as_ref().split_at(4);
                suite.aead_alg.encrypter(key, fixed, explicit)
            }
            (None, suite) => panic!("{suite:?} is of no version"),
        };
        let mut sealer = Self { raw, encrypter, number: 0 };
        // It wants to begin with the first number.
        while sealer.number < number {
            sealer.seal(DATA, b"sent before");
        }
        sealer
    }

    fn seal(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let (typ, version) = (ContentType::from(kind), ProtocolVersion::TLSv1_2);
        let message = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(body) };
        let sealed = self.encrypter.encrypt(message, self.number).expect("it encrypts");
        self.number += 1;
        sealed.encode()
    }
}

/// What is sent in records behind the handshake, each with its kind. A line follows.
const SEALED: &[(&str, usize, u8, &[u8])] = &[
    ("an empty record of a handshake", 1, HANDSHAKE, b""),
    ("an alert without bytes", 1, ALERT, b""),
    ("empty data without end", 5000, DATA, b""),
    ("warnings without end", 3000, ALERT, &[1, 90]),
    ("a fatal alert", 1, ALERT, &[2, 40]),
    ("a kind that is none", 1, 99, b"abc"),
    ("a change of keys", 1, CHANGE, &[1]),
    ("a call for a hello", 1, HANDSHAKE, &[0, 0, 0, 0]),
    ("a finish", 1, HANDSHAKE, &[20, 0, 0, 1, 0]),
    ("new keys that are none", 1, HANDSHAKE, &[24, 0, 0, 1, 7]),
    ("half a message", 1, HANDSHAKE, &[24, 0, 0]),
    ("a message of 16 MiB", 1, HANDSHAKE, &[11, 0xff, 0xff, 0xff, 0]),
];

#[test]
fn sealed_records_that_no_library_sends_end_their_connection_and_no_other() {
    on_every_driver(|case| {
        let authority = Authority::new();
        let (server, told) = guarded(case, authority.tls(&[NAME]), Limits::new());
        let mut other = connect(&server, &Arc::new(authority.client(ALL_VERSIONS, None)));
        for versions in [&[&TLS13][..], &[&TLS12]] {
            let mut config = authority.client(versions, None);
            config.enable_secret_extraction = true;
            let config = Arc::new(config);
            for (what, times, kind, body) in SEALED {
                let mut client = connect(&server, &config);
                assert_eq!(client.ask("x"), "x");
                let mut sealer = Sealer::of(client);
                let mut records: Vec<u8> =
                    (0..*times).flat_map(|_| sealer.seal(*kind, body)).collect();
                records.extend(sealer.seal(DATA, b"a line\n"));
                // It may have been closed before it has sent all.
                let _ = sealer.raw.try_send(&records);
                let _ = sealer.raw.try_rest();
                assert_eq!(other.ask(what), *what, "others are served");
                let closed = told.try_iter().find(|what| what.starts_with("closed "));
                let closed = closed.unwrap_or_default();
                assert!(closed.starts_with("closed Tls("), "{what}: {closed}");
            }
        }
    });
}
