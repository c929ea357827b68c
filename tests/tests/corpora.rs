//! What fuzzing found worth keeping, run again: every file in `fuzz/corpus`, through the bodies of
//! the fuzz targets. Without a fuzzer, and without a nightly compiler.

#![expect(unreachable_pub, reason = "the bodies belong to the fuzz targets")]
#![expect(clippy::panic, reason = "that is how a body says that something is wrong")]

#[path = "../../fuzz/bodies/address.rs"]
mod address;
#[path = "../../fuzz/bodies/codecs.rs"]
mod codecs;
#[path = "../../fuzz/bodies/conversation.rs"]
mod conversation;
#[path = "../../fuzz/bodies/proxy.rs"]
mod proxy;
#[path = "../../fuzz/bodies/resp.rs"]
mod resp;
#[path = "../../fuzz/bodies/scenarios.rs"]
mod scenarios;
#[cfg(feature = "tls")]
#[path = "../../fuzz/bodies/tls.rs"]
mod tls;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use arbitrary::{Arbitrary, Unstructured};

/// Runs each file in the corpus of `target`, in the order of their names.
fn replay(target: &str, run: impl Fn(Unstructured<'_>) -> arbitrary::Result<()>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).expect("the target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    let mut ran = 0;
    for path in &paths {
        let bytes = fs::read(path).expect("a file of the corpus can be read");
        let outcome = catch_unwind(AssertUnwindSafe(|| run(Unstructured::new(&bytes))));
        let Ok(understood) = outcome else { panic!("that was {}", path.display()) };
        ran += usize::from(understood.is_ok());
    }
    // As for the fuzzer, a few files may be too short to be an input.
    assert!(2 * ran > paths.len(), "{ran} of {} files in {} ran", paths.len(), folder.display());
}

macro_rules! replayed {
    ($($target:ident)*) => {$(
        #[test]
        fn $target() {
            replay(stringify!($target), |bytes| {
                $target::Input::arbitrary_take_rest(bytes).map($target::run)
            });
        }
    )*};
}

replayed!(address codecs conversation proxy resp scenarios);
#[cfg(feature = "tls")]
replayed!(tls);
