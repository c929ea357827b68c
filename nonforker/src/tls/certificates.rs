//! Certificates and keys as they come in files, and until when a certificate is good.

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::TlsError;

/// The certificates in a PEM text: at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| TlsError::new(format!("no certificates in PEM: {error}")))?;
    if all.is_empty() {
        return Err(TlsError::new("there is no certificate in PEM"));
    }
    Ok(all)
}

/// The first private key in a PEM text: PKCS #8, PKCS #1 or SEC 1.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::new("there is no private key in PEM"),
        error => TlsError::new(format!("no private key in PEM: {error}")),
    })
}

/// Reads a file, which has a name in the error.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path)
        .map_err(|error| TlsError::new(format!("cannot read {}: {error}", path.display())))
}

/// Reads a certificate and its key, which have names in errors.
pub(super) fn read_both(
    certificate: &Path,
    key: &Path,
) -> Result<([Vec<u8>; 2], [String; 2]), TlsError> {
    let texts = [read(certificate)?, read(key)?];
    Ok((texts, [certificate, key].map(|path| path.display().to_string())))
}

/// From when until when a certificate is good, in seconds of Unix time.
pub(super) type Validity = (i64, i64);

/// When a certificate begins and ceases to be good. `None` if that cannot be read.
pub(super) fn validity(der: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(der, 0x30)?;
    let (mut rest, _) = element(certificate, 0x30)?;
    // The version, which may be missing; the serial number; the algorithm; the issuer.
    if let Some((_, behind)) = element(rest, 0xa0) {
        rest = behind;
    }
    for tag in [0x02, 0x30, 0x30] {
        (_, rest) = element(rest, tag)?;
    }
    let (times, _) = element(rest, 0x30)?;
    let (from, behind) = time(times)?;
    let (until, _) = time(behind)?;
    Some((from, until))
}

/// Splits the first element off, if it has this tag: its content, and what is behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            (bytes.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    (first == tag).then_some((content, behind))
}

/// A time in UTC with two digits for the year, or four.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (digits, is_short, behind) = match element(der, 0x17) {
        Some((digits, behind)) => (digits, true, behind),
        None => {
            let (digits, behind) = element(der, 0x18)?;
            (digits, false, behind)
        }
    };
    let digits = digits.strip_suffix(b"Z")?;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<i64>().ok();
    let (year, rest) = digits.split_at_checked(if is_short { 2 } else { 4 })?;
    let year = match number(year)? {
        year if !is_short => year,
        year @ 50.. => 1900 + year,
        year => 2000 + year,
    };
    let mut parts = [0; 5];
    for (part, bytes) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = number(bytes)?;
    }
    let [month, day, hour, minute, second] = parts;
    Some((days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, behind))
}

/// The days from the first of January 1970 to a day of the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::{days, time, validity};

    #[test]
    fn times_are_read_as_certificates_have_them() {
        for (text, tag, expected) in [
            ("700101000000Z", 0x17, Some(0)),
            ("491231235959Z", 0x17, Some(2_524_607_999)),
            ("500101000000Z", 0x17, Some(-631_152_000)),
            ("20000229120000Z", 0x18, Some(951_825_600)),
            ("99991231235959Z", 0x18, Some(253_402_300_799)),
            ("7001010000", 0x17, None),
            ("x00101000000Z", 0x17, None),
        ] {
            let mut der = vec![tag, u8::try_from(text.len()).expect("it is short")];
            der.extend_from_slice(text.as_bytes());
            assert_eq!(time(&der).map(|(time, _)| time), expected, "{text}");
        }
        assert_eq!(days(1970, 1, 1), 0);
    }

    #[test]
    fn the_validity_of_a_certificate_is_found_and_cut_off_ones_are_no_panic() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let der = made.cert.der();
        let (from, until) = validity(der).expect("it has a validity");
        assert_eq!((from, until), (157_766_400, 67_090_118_400), "1975 and 4096");
        for length in 0..der.len() {
            let _ = validity(&der[..length]);
        }
    }
}
