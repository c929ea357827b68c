//! What comes of Redis requests, well-formed and malformed, however they are cut up on the way.

#![expect(clippy::indexing_slicing, reason = "to index a command is what is tested")]

use proptest::{collection::vec, prelude::*};

use super::{Command, INLINE_MAX, Resp, TOO_MANY};
use crate::codec::{Codec, DEFAULT_FRAME_MAX, Decoded, FrameError, check};

/// A stream, and what must come of it. Each frame is written as its arguments, joined by `|`.
struct Case {
    name: &'static str,
    stream: &'static [u8],
    frames: &'static [&'static str],
    end: Result<(), FrameError>,
}

/// Every limit is in sight: 40 bytes, 10 for an argument, 4 arguments.
const SMALL: Resp = Resp::with_max(40).bulk_max(10).args_max(4);

const TOO_LONG: Result<(), FrameError> = Err(FrameError::TooLong { max: 40 });
const LONG_ARGUMENT: Result<(), FrameError> = Err(FrameError::TooLong { max: 10 });

const fn cut_off(have: usize) -> Result<(), FrameError> {
    Err(FrameError::Truncated { have })
}

const fn bad(offset: usize, expected: &'static str) -> Result<(), FrameError> {
    Err(FrameError::Malformed { offset, expected })
}

const fn count(offset: usize) -> Result<(), FrameError> {
    bad(offset, "a multibulk length")
}

const fn length(offset: usize) -> Result<(), FrameError> {
    bad(offset, "a bulk length")
}

#[rustfmt::skip]
const ARRAYS: &[Case] = &[
    Case { name: "nothing", stream: b"", frames: &[], end: Ok(()) },
    Case { name: "a command", stream: b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", frames: &["GET|k"], end: Ok(()) },
    Case { name: "two commands", stream: b"*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n", frames: &["a", "b"], end: Ok(()) },
    Case { name: "an empty argument", stream: b"*2\r\n$0\r\n\r\n$0\r\n\r\n", frames: &["|"], end: Ok(()) },
    Case { name: "any byte", stream: b"*1\r\n$6\r\n\r\n$1*\0\r\n", frames: &["\\r\\n$1*\\x00"], end: Ok(()) },
    Case { name: "an empty array", stream: b"*0\r\n*1\r\n$1\r\na\r\n*0\r\n", frames: &["a"], end: Ok(()) },
    Case { name: "no array", stream: b"*-1\r\n*-4\r\n*1\r\n$1\r\na\r\n", frames: &["a"], end: Ok(()) },
    Case { name: "most arguments", stream: b"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", frames: &["a|b|c|d"], end: Ok(()) },
    Case { name: "longest argument", stream: b"*1\r\n$10\r\n0123456789\r\n", frames: &["0123456789"], end: Ok(()) },
    Case { name: "longest", stream: b"*3\r\n$4\r\n0123\r\n$5\r\n01234\r\n$9\r\n012345678\r\n*0\r\n", frames: &["0123|01234|012345678"], end: Ok(()) },
    Case { name: "too long", stream: b"*3\r\n$5\r\n01234\r\n$5\r\n01234\r\n$9\r\n012345678\r\n", frames: &[], end: TOO_LONG },

    Case { name: "cut off in the count", stream: b"*1", frames: &[], end: cut_off(2) },
    Case { name: "cut off before an argument", stream: b"*0\r\n*2\r\n$1\r\na\r\n", frames: &[], end: cut_off(11) },
    Case { name: "cut off in a length", stream: b"*1\r\n$1\r", frames: &[], end: cut_off(7) },
    Case { name: "cut off in an argument", stream: b"*1\r\n$3\r\nab", frames: &[], end: cut_off(10) },
    Case { name: "cut off in an ending", stream: b"*1\r\n$2\r\nab\r", frames: &[], end: cut_off(11) },

    Case { name: "no count", stream: b"*\r\n", frames: &[], end: count(1) },
    Case { name: "a word for a count", stream: b"*a\r\n", frames: &[], end: count(1) },
    Case { name: "a count and more", stream: b"*1a\r\n", frames: &[], end: count(2) },
    Case { name: "a leading zero", stream: b"*01\r\n", frames: &[], end: count(2) },
    Case { name: "a plus", stream: b"*+1\r\n", frames: &[], end: count(1) },
    Case { name: "a space", stream: b"* 1\r\n", frames: &[], end: count(1) },
    Case { name: "two signs", stream: b"*--1\r\n", frames: &[], end: count(2) },
    Case { name: "a sign alone", stream: b"*-\r\n", frames: &[], end: count(2) },
    Case { name: "minus nothing", stream: b"*-0\r\n", frames: &[], end: count(2) },
    Case { name: "a bare line feed", stream: b"*1\n", frames: &[], end: count(2) },
    Case { name: "a bare return", stream: b"*1\r$", frames: &[], end: count(3) },
    Case { name: "too many arguments", stream: b"*5\r\n", frames: &[], end: bad(1, TOO_MANY) },
    Case { name: "far too many arguments", stream: b"*99999999999999999999999999", frames: &[], end: bad(1, TOO_MANY) },
    Case { name: "far too few arguments", stream: b"*-99999999999999999999999999", frames: &[], end: bad(1, TOO_MANY) },

    Case { name: "another type", stream: b"*1\r\n:1\r\n", frames: &[], end: bad(4, "'$'") },
    Case { name: "an array in an array", stream: b"*1\r\n*1\r\n$1\r\na\r\n", frames: &[], end: bad(4, "'$'") },
    Case { name: "another type later", stream: b"*2\r\n$1\r\na\r\n+b\r\n", frames: &[], end: bad(11, "'$'") },
    Case { name: "no length", stream: b"*1\r\n$\r\n", frames: &[], end: length(5) },
    Case { name: "no argument", stream: b"*1\r\n$-1\r\n", frames: &[], end: length(5) },
    Case { name: "a leading zero in a length", stream: b"*1\r\n$00\r\n\r\n", frames: &[], end: length(6) },
    Case { name: "a bare line feed after a length", stream: b"*1\r\n$1\na\r\n", frames: &[], end: length(6) },
    Case { name: "longer than it says", stream: b"*1\r\n$1\r\nab\r\n", frames: &[], end: bad(9, "a carriage return") },
    Case { name: "ends with a return only", stream: b"*1\r\n$1\r\na\r$", frames: &[], end: bad(10, "a line feed") },
    Case { name: "a long argument", stream: b"*1\r\n$11\r\n", frames: &[], end: LONG_ARGUMENT },
    Case { name: "a long argument, complete", stream: b"*1\r\n$11\r\n01234567890\r\n", frames: &[], end: LONG_ARGUMENT },
    Case { name: "a far too long argument", stream: b"*1\r\n$99999999999999999999999999", frames: &[], end: LONG_ARGUMENT },
    Case { name: "more than there is room for", stream: b"*4\r\n$10\r\n0123456789\r\n$2\r\n", frames: &[], end: TOO_LONG },
    Case { name: "malformed where there is no room", stream: b"*4\r\n$10\r\n0123456789\r\n$2\r\nab\r\nx", frames: &[], end: TOO_LONG },
];

#[rustfmt::skip]
const LINES: &[Case] = &[
    Case { name: "a word", stream: b"PING\r\n", frames: &["PING"], end: Ok(()) },
    Case { name: "a bare line feed", stream: b"PING\nPING\r\n", frames: &["PING", "PING"], end: Ok(()) },
    Case { name: "words", stream: b"  a\tb  \x0bc \n", frames: &["a|b|c"], end: Ok(()) },
    Case { name: "a vertical tab in a word", stream: b"a\x0bb\n", frames: &["a\\x0bb"], end: Ok(()) },
    Case { name: "empty lines", stream: b"\r\n\n  \na\n", frames: &["a"], end: Ok(()) },
    Case { name: "an array after a line", stream: b"a\n*1\r\n$1\r\nb\r\nc\n", frames: &["a", "b", "c"], end: Ok(()) },
    Case { name: "a star later", stream: b"a *1\n $1\n", frames: &["a|*1", "$1"], end: Ok(()) },
    Case { name: "any byte", stream: b"\0 \xff\\\n", frames: &["\\x00|\\xff\\\\"], end: Ok(()) },
    Case { name: "a return in the line", stream: b"a\rb\r\r\n", frames: &["a|b"], end: Ok(()) },
    Case { name: "most words", stream: b"a b c d\n", frames: &["a|b|c|d"], end: Ok(()) },
    Case { name: "too many words", stream: b"a b c d e\n", frames: &[], end: bad(0, TOO_MANY) },
    Case { name: "too many quoted words", stream: b"a b c d ''\n", frames: &[], end: bad(0, TOO_MANY) },
    Case { name: "cut off", stream: b"a\nb", frames: &["a"], end: cut_off(1) },
    Case { name: "longest", stream: b"012345678901234567890123456789012345678\n", frames: &["012345678901234567890123456789012345678"], end: Ok(()) },
    Case { name: "too long", stream: b"a\n0123456789012345678901234567890123456789\n", frames: &["a"], end: TOO_LONG },
    Case { name: "too long, cut off", stream: b"0123456789012345678901234567890123456789", frames: &[], end: TOO_LONG },

    Case { name: "double quotes", stream: b"a \"b c\" \"\"\n", frames: &["a|b c|"], end: Ok(()) },
    Case { name: "single quotes", stream: b"a 'b \"c' ''\r\n", frames: &["a|b \\\"c|"], end: Ok(()) },
    Case { name: "quotes in a word", stream: b"a\"b c\" d'e'\n", frames: &["ab c|de"], end: Ok(()) },
    Case { name: "escapes", stream: b"\"\\n\\r\\t\\b\\a\\\\\\\"\\q\"\n", frames: &["\\n\\r\\t\\x08\\x07\\\\\\\"q"], end: Ok(()) },
    Case { name: "hexadecimal", stream: b"\"\\x00\\xfF\\x4\\xg0\\x\"\n", frames: &["\\x00\\xffx4xg0x"], end: Ok(()) },
    Case { name: "escapes in single quotes", stream: b"'\\n\\'\\\\ '\n", frames: &["\\\\n\\'\\\\\\\\ "], end: Ok(()) },
    Case { name: "no quotes, no escapes", stream: b"\\n\\x41\n", frames: &["\\\\n\\\\x41"], end: Ok(()) },
    Case { name: "a tab behind quotes", stream: b"'a'\t\"b\"\x0cc\n", frames: &["a|b|c"], end: Ok(()) },
    Case { name: "open double quotes", stream: b"a \"b\n", frames: &[], end: bad(4, "balanced quotes") },
    Case { name: "open single quotes", stream: b"a\n'\r\n", frames: &["a"], end: bad(2, "balanced quotes") },
    Case { name: "an escaped closing quote", stream: b"\"\\\"\n", frames: &[], end: bad(3, "balanced quotes") },
    Case { name: "an open escape", stream: b"\"\\\n", frames: &[], end: bad(2, "balanced quotes") },
    Case { name: "a word behind quotes", stream: b"\"a\"b\n", frames: &[], end: bad(4, "balanced quotes") },
    Case { name: "quotes behind quotes", stream: b"'a''b'\n", frames: &[], end: bad(6, "balanced quotes") },
];

fn owned(command: Command<'_>) -> Vec<Vec<u8>> {
    let args: Vec<Vec<u8>> = command.iter().map(<[u8]>::to_vec).collect();
    assert_eq!(args.len(), command.len());
    for (index, argument) in args.iter().enumerate() {
        assert_eq!(&command[index], argument, "argument {index} of {command:?}");
    }
    assert_eq!(command.get(args.len()), None);
    args
}

fn shown(command: Command<'_>) -> String {
    let args = owned(command);
    let args: Vec<String> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
    args.join("|")
}

#[test]
fn commands_do_not_depend_on_how_bytes_arrive() {
    for Case { name, stream, frames, end } in ARRAYS.iter().chain(LINES) {
        let seen = check::cuts(&SMALL, stream, shown);
        assert_eq!(seen.0, *frames, "{name}");
        assert_eq!(seen.1, *end, "{name}");
    }
}

/// Every text of at most `len` of these bytes, each behind `start`.
fn every_text(start: &[u8], len: u32, each: impl Fn(&[u8])) {
    const BYTES: &[u8] = b"*$-01\r\na\"";
    for len in 0..=len {
        for mut number in 0..BYTES.len().pow(len) {
            let mut text = start.to_vec();
            for _ in 0..len {
                text.extend(BYTES.get(number % BYTES.len()));
                number /= BYTES.len();
            }
            each(&text);
        }
    }
}

#[test]
fn no_short_text_depends_on_how_it_arrives() {
    let tiny = Resp::with_max(10).args_max(1);
    every_text(b"", 5, |text| drop(check::cuts(&tiny, text, owned)));
    every_text(b"*1\r\n", 4, |text| drop(check::cuts(&tiny, text, owned)));
    let small = Resp::with_max(20).bulk_max(1);
    every_text(b"*2\r\n$0\r\n\r\n", 3, |text| drop(check::cuts(&small, text, owned)));
    every_text(b"*1\r\n$1\r\n", 3, |text| drop(check::cuts(&small, text, owned)));
}

/// What comes of the first bytes of this, with arguments that live on.
fn told(
    decoded: Result<Decoded<Command<'_>>, FrameError>,
) -> Result<Decoded<Vec<Vec<u8>>>, FrameError> {
    Ok(match decoded? {
        Decoded::Frame { frame, consumed } => Decoded::Frame { frame: owned(frame), consumed },
        Decoded::Skip(count) => Decoded::Skip(count),
        Decoded::Incomplete { need } => Decoded::Incomplete { need },
    })
}

/// A command that is there at once is read in a shorter way than one that comes byte by byte.
fn assert_ways_agree(resp: &Resp, stream: &[u8]) {
    let mut slow = resp.clone();
    let mut pieces = (1..=stream.len()).map(|len| told(slow.decode(&stream[..len])));
    let last = pieces.find(|told| !matches!(told, Ok(Decoded::Incomplete { .. })));
    let at_once = told(resp.clone().decode(stream));
    let at_once = Some(at_once).filter(|told| !matches!(told, Ok(Decoded::Incomplete { .. })));
    assert_eq!(at_once, last, "{resp:?}, {}", stream.escape_ascii());
}

#[test]
fn the_short_way_to_a_command_leads_where_the_long_one_does() {
    for size in [0, 1, 9, 10, 11, 99, 100, 101] {
        let mut stream = array(&[vec![b'x'; size], b"y".into(), vec![b'z'; size]]);
        stream.push(b'*');
        for limit in [8, 9, 10, 11, 98, 99, 100, 101] {
            assert_ways_agree(&Resp::new().bulk_max(limit), &stream);
            assert_ways_agree(&Resp::with_max(limit * 2), &stream);
        }
        for less in 0..4 {
            assert_ways_agree(&Resp::with_max(stream.len() - less), &stream);
        }
        for at in (0..stream.len()).filter(|at| !(20..stream.len() - 20).contains(at)) {
            for byte in *b"*$/0159:\r\n\0\xb0x" {
                let mut wrong = stream.clone();
                wrong[at] = byte;
                assert_ways_agree(&Resp::new(), &wrong);
            }
        }
    }
    for count in 0..12 {
        for limit in [0, 1, 8, 9, 10] {
            assert_ways_agree(&Resp::new().args_max(limit), &array(&vec![b"x"; count]));
        }
    }
}

/// Behind the length, an argument ends wherever it may be.
#[test]
fn what_is_not_quite_a_length_is_none_in_either_way() {
    let digits: Vec<u8> = (b'*'..=b'@').chain(*b"\r\n\0\x70\xb0").collect();
    let pairs = digits.iter().flat_map(|&tens| digits.iter().map(move |&ones| vec![tens, ones]));
    let ones = (0..=u8::MAX).map(|ones| vec![ones]);
    for length in ones.chain(pairs) {
        for kind in *b"$*" {
            for shift in [b"".as_slice(), b"x"] {
                let body = [shift, &b"\r\n".repeat(60)].concat();
                let stream = [b"*1\r\n", &[kind][..], &length, b"\r\n", &body].concat();
                assert_ways_agree(&Resp::new(), &stream);
            }
        }
    }
}

#[test]
fn a_command_that_never_ends_is_refused_before_it_is_kept() {
    for max in [0, 1, 5, 40, 1000] {
        let resp = Resp::with_max(max);
        for unit in ["x", " ", "'", "*", "*9", "*1\r\n$9", "*2\r\n$1\r\nx\r\n", "\r", "*-"] {
            check::bound(&resp, unit.as_bytes(), max);
        }
    }
    check::bound(&Resp::with_max(usize::MAX), b"x", INLINE_MAX);
    check::bound(&Resp::new(), b"x", DEFAULT_FRAME_MAX);
}

#[test]
fn what_cannot_fit_is_refused_when_it_is_announced() {
    let too_long = Err(FrameError::TooLong { max: 1000 });
    for stream in ["*166\r\n", "*2\r\n$983\r\n", "*1\r\n$1001", "*1\r\n$989\r\n"] {
        let seen = Resp::with_max(1000).decode(stream.as_bytes()).map(|_| ());
        assert_eq!(seen, too_long, "{}", stream.escape_debug());
    }
    for (stream, least) in [("*165\r\n", 996), ("*2\r\n$982\r\n", 1000), ("*1\r\n$988\r\n", 1000)] {
        let seen = Resp::with_max(1000).decode(stream.as_bytes());
        let Ok(Decoded::Incomplete { need }) = seen else { panic!("{seen:?}: {stream}") };
        assert_eq!(stream.len() + need, least, "{}", stream.escape_debug());
    }
}

#[test]
fn a_command_is_read_once_in_however_many_pieces_it_arrives() {
    let line = format!("set {}\r\n", "x".repeat(5000));
    check::cost(&Resp::new(), line.as_bytes());
    check::cost(&Resp::new(), &array(&[b"set".to_vec(), b"x".repeat(5000)]));
    check::cost(&Resp::new(), &array(&[b"x".as_slice(); 1000]));
}

/// That the arguments which have arrived are not gone through again cannot be told by `cost`: a
/// wrong length among them would have been an error before.
#[test]
fn arguments_that_have_arrived_are_not_looked_at_again() {
    let mut stream = array(&[b"x".as_slice(); 1000]);
    let last = stream.pop();
    let mut resp = Resp::new();
    assert!(matches!(resp.decode(&stream), Ok(Decoded::Incomplete { need: 1 })));
    for byte in stream.iter_mut().skip(100).take(6000) {
        *byte = b'?';
    }
    stream.extend(last);
    let Ok(Decoded::Frame { frame, consumed }) = resp.decode(&stream) else { panic!("a command") };
    assert_eq!((frame.len(), consumed), (1000, stream.len()));
    assert_eq!((&frame[0], &frame[3]), (&b"x"[..], &b"x"[..]));
}

#[test]
fn a_command_has_no_more_arguments_than_it_says() {
    for (count, is_cut) in
        [1, 2, 3, 10].into_iter().flat_map(|count| [(count, false), (count, true)])
    {
        let mut resp = Resp::new();
        let mut stream = array(&vec![b"x"; count]);
        if is_cut {
            assert!(matches!(
                resp.decode(&stream[..stream.len() - 1]),
                Ok(Decoded::Incomplete { .. })
            ));
        }
        stream.extend_from_slice(b"$1\r\ny\r\n$1\r\nz\r\n");
        let Ok(Decoded::Frame { frame, .. }) = resp.decode(&stream) else { panic!("a command") };
        assert_eq!((frame.get(count), frame.get(count + 1)), (None, None), "{count}, {is_cut}");
        assert_eq!(owned(frame), vec![b"x"; count], "{count}, {is_cut}");
    }
}

#[test]
fn names_are_told_apart_in_any_case() {
    for (stream, name) in [("get k\n", "get"), ("'GeT' k\n", "GeT"), ("*1\r\n$3\r\nGET\r\n", "GET")]
    {
        let mut resp = Resp::new();
        let Ok(Decoded::Frame { frame, .. }) = resp.decode(stream.as_bytes()) else {
            panic!("a command")
        };
        assert_eq!(frame.name(), name.as_bytes());
        assert!(frame.is("GET") && frame.is("get") && !frame.is("GE") && !frame.is("GETS"));
    }
}

#[test]
#[should_panic(expected = "argument 2 of a command that has 2")]
fn an_argument_that_is_not_there_is_the_handlers_mistake() {
    let Ok(Decoded::Frame { frame, .. }) = Resp::new().decode(b"get k\n") else {
        panic!("a command")
    };
    let _ = &frame[2];
}

#[test]
fn a_connection_pays_little_for_its_codec() {
    assert!(size_of::<Resp>() <= 40);
}

/// A command as every client sends it.
fn array(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut stream = format!("*{}\r\n", args.len()).into_bytes();
    for argument in args {
        let argument = argument.as_ref();
        stream.extend(format!("${}\r\n", argument.len()).bytes());
        stream.extend_from_slice(argument);
        stream.extend_from_slice(b"\r\n");
    }
    stream
}

/// A command as a careful person types it.
fn quoted(args: &[Vec<u8>]) -> Vec<u8> {
    let quoted = args.iter().map(|argument| format!("\"{}\"", argument.escape_ascii()));
    let mut line = quoted.collect::<Vec<_>>().join(" ").into_bytes();
    line.push(b'\n');
    line
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'$'), Just(b'\''), any::<u8>()], 0..12)
}

proptest! {
    #[test]
    fn what_is_sent_is_read(commands in vec((any::<bool>(), vec(argument(), 1..8)), 0..5)) {
        let mut stream = Vec::new();
        for (as_array, args) in &commands {
            stream.extend(if *as_array { array(args) } else { quoted(args) });
        }
        let (frames, end) = check::cuts(&Resp::with_max(400), &stream, owned);
        let sent: Vec<Vec<Vec<u8>>> = commands.into_iter().map(|(_, args)| args).collect();
        prop_assert_eq!(frames, sent);
        prop_assert_eq!(end, Ok(()));
    }
}
