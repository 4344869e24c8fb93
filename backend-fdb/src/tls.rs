//! What can be said of the TLS settings before FoundationDB's client has them. Where it cannot use them it goes on without,
//! and the first connection to a cluster with TLS ends the whole process with a fault (seen on 7.3.79). So what can be found
//! out here is refused here.

use std::path::Path;

use litefleet::{Error, Result};
use rustls::InconsistentKeys;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::network::NetworkConfig;

/// Where the client finds the key's password when no setting names it.
const PASSWORD: &str = "FDB_TLS_PASSWORD";

/// The attributes of a certificate that a rule may name.
const ATTRIBUTES: [&str; 9] = ["C", "CN", "L", "ST", "O", "OU", "UID", "DC", "subjectAltName"];
/// Whose certificate it is: the peer's own, its issuer's, or the root's.
const OWNERS: [&str; 6] = ["S", "Subject", "I", "Issuer", "R", "Root"];

/// `Invalid` where the settings cannot work.
pub(crate) fn check(config: &NetworkConfig) -> Result<()> {
    let certificate = match &config.tls_certificate {
        Some(path) => Some((path, pem("tls_certificate", path, "CERTIFICATE-----")?)),
        None => None,
    };
    if let Some(path) = &config.tls_ca {
        pem("tls_ca", path, "CERTIFICATE-----")?;
    }
    if let Some(path) = &config.tls_key {
        let key = pem("tls_key", path, "PRIVATE KEY-----")?;
        let has_password = config.tls_password.is_some() || std::env::var_os(PASSWORD).is_some();
        if key.contains("ENCRYPTED") && !has_password {
            return Err(Error::invalid(format!("tls_key={}: the key is encrypted: give tls_password", path.display())));
        }
        if let Some((certificate, chain)) = &certificate
            && is_of_another(&key, chain)
        {
            return Err(Error::invalid(format!(
                "tls_key={}: it is not the key of the certificate in tls_certificate={}, or not of the first one there, \
                 which must be this client's own",
                path.display(),
                certificate.display()
            )));
        }
    }
    config.tls_verify_peers.as_deref().map_or(Ok(()), verify_peers)
}

/// Whether the client can read the rules. Of those that it cannot it makes no error that anybody sees.
fn verify_peers(rules: &str) -> Result<()> {
    let invalid = |why: std::fmt::Arguments<'_>| Err(Error::invalid(format!("tls_verify_peers={rules}: {why}")));
    if rules.contains(r"\|") {
        // It would look for the end of such a rule for ever, on its network thread.
        return invalid(format_args!(
            r"a | ends a rule, also with a backslash before it: in a value it is written \7c"
        ));
    }
    match rules.split('|').flat_map(terms).find(|term| !is_term(term)) {
        Some(term) => invalid(format_args!("'{term}' is not a rule; it should be as in Check.Valid=1,S.CN=name")),
        None => Ok(()),
    }
}

/// The text of a PEM file with a block of a kind.
fn pem(name: &str, path: &Path, kind: &str) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|error| {
        Error::invalid(format!("{name}={}: the file cannot be read: {error}", path.display())).with_source(error)
    })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(kind)) {
        return Ok(text);
    }
    let kind = kind.trim_end_matches('-').to_lowercase();
    Err(Error::invalid(format!("{name}={}: there is no {kind} in PEM form in the file", path.display())))
}

/// Whether a key is certainly not that of a chain's first certificate. Of an encrypted key, and of a kind that is not known
/// here, nothing can be said: the client library may know it.
fn is_of_another(key: &str, chain: &str) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(chain.as_bytes()) else { return false };
    let Some(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok().and_then(|key| any_supported_type(&key).ok())
    else {
        return false;
    };
    let matched = CertifiedKey::new(vec![certificate], key).keys_match();
    matches!(matched, Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)))
}

/// What a rule demands, between commas that no backslash stands before. One may stand behind the last.
fn terms(rule: &str) -> Vec<&str> {
    let mut escaped = false;
    let ends = |letter| {
        let ends = letter == ',' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    };
    let mut terms: Vec<&str> = rule.split(ends).collect();
    terms.pop_if(|last| last.is_empty());
    terms
}

/// Whether it is an attribute, `=`, `>=` (begins with) or `<=` (ends with), and what is demanded of it.
fn is_term(term: &str) -> bool {
    let Some((name, value)) = term.split_once('=') else { return false };
    if name.starts_with("Check.") {
        return ["Check.Valid", "Check.Unexpired"].contains(&name) && ["0", "1"].contains(&value);
    }
    let name = name.strip_suffix(['<', '>']).unwrap_or(name);
    let attribute = match name.split_once('.') {
        Some((owner, attribute)) if OWNERS.contains(&owner) => attribute,
        Some(_) => return false,
        None => name,
    };
    ATTRIBUTES.contains(&attribute) && is_value(value)
}

/// Whether it is text as RFC 4514 has it in names, but not as hex digits alone. Spaces at its ends would need a backslash.
fn is_value(value: &str) -> bool {
    let mut rest = value.as_bytes();
    let mut ends_well = !value.is_empty() && !value.starts_with(['#', ' ']);
    while ends_well && !rest.is_empty() {
        (rest, ends_well) = match rest {
            [b'\\', letter, rest @ ..] if b" \"#+,;<=>\\".contains(letter) => (rest, true),
            [b'\\', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => (rest, true),
            [b'\\' | b'"' | b'+' | b';' | b'<' | b'>' | 0, ..] | [] => return false,
            [b' ', rest @ ..] => (rest, rest.iter().any(|letter| *letter != b' ')),
            [_, rest @ ..] => (rest, true),
        };
    }
    ends_well
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use litefleet::ErrorKind;

    use super::*;

    fn refused(config: &NetworkConfig) -> String {
        let error = check(config).expect_err("it cannot work");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.message().to_owned()
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let certificate = file("certificate", "text before it\n-----BEGIN CERTIFICATE-----\r\nAAAA\n");
        let key = file("key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n");
        let right = NetworkConfig {
            tls_certificate: certificate.clone(),
            tls_ca: certificate,
            tls_key: key,
            ..Default::default()
        };
        check(&right).unwrap();
        let none: Option<PathBuf> = Some(folder.path().join("none"));
        for wrong in [none, file("empty", ""), file("other", "-----BEGIN PUBLIC KEY-----\nAAAA\n")] {
            let name = wrong.as_ref().unwrap().display().to_string();
            let message = refused(&NetworkConfig { tls_certificate: wrong.clone(), ..right.clone() });
            assert!(message.contains("tls_certificate") && message.contains(&name), "{message}");
            let message = refused(&NetworkConfig { tls_ca: wrong.clone(), ..right.clone() });
            assert!(message.contains("tls_ca") && message.contains(&name), "{message}");
            let message = refused(&NetworkConfig { tls_key: wrong, ..right.clone() });
            assert!(message.contains("tls_key") && message.contains(&name), "{message}");
        }
        let tls_key = file("encrypted", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n");
        let encrypted = NetworkConfig { tls_key, ..right };
        assert!(refused(&encrypted).contains("tls_password"));
        check(&NetworkConfig { tls_password: Some("secret".into()), ..encrypted }).unwrap();
    }

    #[test]
    fn key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let issued = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let ((ours, key), (authority, other)) = (issued("ours"), issued("authority"));
        let with = |chain: &[&str], key: &str| NetworkConfig {
            tls_certificate: Some(file("chain.pem", &chain.concat())),
            tls_key: Some(file("key.pem", key)),
            ..NetworkConfig::default()
        };
        check(&with(&[&ours], &key)).unwrap();
        check(&with(&[&ours, &authority], &key)).unwrap();
        for (chain, key) in [(vec![&*ours], &other), (vec![&authority, &ours], &key)] {
            let message = refused(&with(&chain, key));
            assert!(message.contains("key.pem") && message.contains("chain.pem"), "{message}");
        }
        // One file may hold both.
        let both = file("both.pem", &[&*key, &ours].concat());
        let both = NetworkConfig { tls_certificate: Some(both.clone()), tls_key: Some(both), ..Default::default() };
        check(&both).unwrap();
    }

    #[test]
    fn rules_that_the_client_cannot_read_are_refused() {
        let rules = |rules: &str| NetworkConfig { tls_verify_peers: Some(rules.into()), ..NetworkConfig::default() };
        for right in [
            "",
            "Check.Valid=1",
            "Check.Valid=1,Check.Unexpired=0,",
            "S.CN=name,I.O>=Begin|Root.subjectAltName<=DNS:.end",
            r"O=a\, b \7c c\3b=",
            r"S.O=a\,",
            r"S.CN=\ a b\ |Check.Valid=0",
        ] {
            check(&rules(right)).unwrap();
        }
        for wrong in [
            "nonsense",
            "Check.Valid",
            "Check.Valid=yes",
            "Check.Valid=1,,",
            "Check.Valid>=1",
            "Check.All=1",
            "S.CN=",
            "X.CN=a",
            "S.XN=a",
            "S.CN=a|nonsense",
            "S.CN=a+b",
            r"S.CN=a\",
            // The client looks for its end for ever.
            r"S.O=a\|b",
            r"S.O=a\\|b",
            "S.CN=name ",
            "S.CN= name",
            "S.CN=#4142",
            r"S.CN=a\zz",
            r"S.CN=a\3",
            ",",
            "Check.Valid=1|,",
        ] {
            let message = refused(&rules(wrong));
            assert!(message.contains("tls_verify_peers"), "{message}");
        }
    }
}
