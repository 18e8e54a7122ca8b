//! The mesh secret: the file that makes a program a node, and the key pairs that come of its lines.
//!
//! A line is a kind and 32 random bytes in base64url (RFC 4648, section 5, without padding): `cm1_…`
//! makes a node, `cr1_…` is derived from it and makes a registry but no node. Nobody types one: whoever
//! connects is shown a public key, so what can be guessed would be found out in peace.
//!
//! The first line is presented to others, all are accepted. So a secret is changed without a pause: the
//! new line is added everywhere, then moved to the front, then the old one is removed.

mod follow;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use self::follow::{Reader, SecretFile};

/// Lines that a file may have: two while a secret is changed, and some to spare.
pub const SECRETS_MAX: usize = 8;
/// A longer file holds something else.
const FILE_BYTES_MAX: u64 = 4096;
/// Bytes of a secret, and of the seed of a key pair.
const SEED_LEN: usize = 32;
/// How the line of a node begins.
const MESH: &str = "cm1_";
/// How the line of a registry begins.
const REGISTRY: &str = "cr1_";
/// What a node's key pair is derived for (RFC 5869, `info`).
const MESH_INFO: &[u8] = b"chatmesh mesh 1";
/// What the keys are derived for by which messages on a broker are sealed.
const BROKER_INFO: &[u8] = b"chatmesh broker 1";
/// What the key pair of registries, and of nodes towards them, is derived for.
const REGISTRY_INFO: &[u8] = b"chatmesh registry 1";

/// The seed of an Ed25519 key pair. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(pub(crate) [u8; SEED_LEN]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Why a file holds no secrets. The text says what is wrong and how to mend it, and nothing of what the
/// file holds.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub struct SecretError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("{0}; `chatnode secret` makes what belongs into it")]
    Unreadable(#[from] io::Error),
    #[error("it is no file")]
    NoFile,
    #[error("others than its owner may read it (mode {0:03o}); chmod 600 it")]
    ReadByOthers(u32),
    #[error("it has more than {FILE_BYTES_MAX} bytes, so it is no file of secrets")]
    TooLong,
    #[error("it has no line; `chatnode secret` prints one")]
    Empty,
    #[error("it has more than {SECRETS_MAX} lines")]
    TooMany,
    #[error("line {0} is not `cm1_` or `cr1_` and 43 characters, as `chatnode secret` prints it")]
    NoSecret(usize),
    #[error("line {0} is there twice")]
    Twice(usize),
    #[error(
        "line {0} is for a registry (`cr1_`) and makes no node; a node needs the line that begins \
         with `cm1_`"
    )]
    ForRegistries(usize),
}

/// What a file of secrets holds, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Mesh(Seed),
    Registry(Seed),
}

impl Secrets {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, may be read by others, or has a line that is no secret.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        read(path)
            .and_then(|text| Self::parse(&text))
            .map_err(|why| SecretError {
                path: path.to_owned(),
                why,
            })
    }

    /// Reads what a node needs: a file without a line that is for registries only.
    ///
    /// # Errors
    /// As [`Self::read`]; also where a line is for registries.
    pub fn read_of_node(path: &Path) -> Result<Self, SecretError> {
        let secrets = Self::read(path)?;
        let wrong = secrets
            .0
            .iter()
            .position(|line| matches!(line, Line::Registry(_)));
        match wrong {
            Some(at) => Err(SecretError {
                path: path.to_owned(),
                why: Why::ForRegistries(at + 1),
            }),
            None => Ok(secrets),
        }
    }

    fn parse(text: &str) -> Result<Self, Why> {
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let number = lines.len() + 1;
            if number > SECRETS_MAX {
                return Err(Why::TooMany);
            }
            let line = Line::parse(line).ok_or(Why::NoSecret(number))?;
            if lines.contains(&line) {
                return Err(Why::Twice(number));
            }
            lines.push(line);
        }
        if lines.is_empty() {
            return Err(Why::Empty);
        }
        Ok(Self(lines))
    }

    /// The seeds of what nodes present to each other, the first to be presented. Lines for registries
    /// give none.
    pub fn of_mesh(&self) -> Vec<Seed> {
        self.of_nodes(MESH_INFO)
    }

    fn of_nodes(&self, info: &[u8]) -> Vec<Seed> {
        let lines = self.0.iter();
        lines
            .filter_map(|line| match line {
                Line::Mesh(secret) => Some(derived(secret, info)),
                Line::Registry(_) => None,
            })
            .collect()
    }

    /// The seeds of what registries and nodes present to each other, the first to be presented.
    pub fn of_registry(&self) -> Vec<Seed> {
        let lines = self.0.iter();
        lines
            .map(|line| match line {
                Line::Mesh(secret) => derived(secret, REGISTRY_INFO),
                Line::Registry(seed) => seed.clone(),
            })
            .collect()
    }

    /// The seeds of what nodes seal messages on a broker with, the first to be used. Lines for registries
    /// give none.
    pub fn of_brokers(&self) -> Vec<Seed> {
        self.of_nodes(BROKER_INFO)
    }

    /// The file for registries that belongs to this one: with it one can be a registry, and no node.
    pub fn lines_for_registries(&self) -> String {
        let seeds = self.of_registry();
        seeds
            .iter()
            .map(|seed| line(REGISTRY, seed) + "\n")
            .collect()
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let (make, rest): (fn(Seed) -> Self, _) = match text.strip_prefix(MESH) {
            Some(rest) => (Self::Mesh, rest),
            None => (Self::Registry, text.strip_prefix(REGISTRY)?),
        };
        let bytes = URL_SAFE_NO_PAD.decode(rest).ok()?;
        Some(make(Seed(bytes.try_into().ok()?)))
    }
}

/// A new line for nodes, of random bytes.
pub fn new_line() -> String {
    line(MESH, &Seed(rand::random()))
}

fn line(kind: &str, seed: &Seed) -> String {
    kind.to_owned() + &URL_SAFE_NO_PAD.encode(seed.0)
}

/// HKDF with SHA-256 (RFC 5869), without salt.
fn derived(secret: &Seed, info: &[u8]) -> Seed {
    let key = Salt::new(HKDF_SHA256, &[]).extract(&secret.0);
    let mut seed = [0; SEED_LEN];
    key.expand(&[info], HKDF_SHA256)
        .and_then(|bytes| bytes.fill(&mut seed))
        .expect("as many bytes as SHA-256 has");
    Seed(seed)
}

fn read(path: &Path) -> Result<String, Why> {
    // Looked at before it is opened: to open a pipe waits until somebody writes.
    if !fs::metadata(path)?.is_file() {
        return Err(Why::NoFile);
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Why::ReadByOthers(mode));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Why::TooLong);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn parse(text: &str) -> Result<Secrets, String> {
        Secrets::parse(text).map_err(|why| why.to_string())
    }

    #[test]
    fn a_new_line_is_read_back_and_no_two_are_alike() {
        let (one, two) = (new_line(), new_line());
        assert_ne!(one, two);
        assert_eq!(one.len(), MESH.len() + 43);
        let secrets = parse(&format!("{one}\n\n  {two}  \n")).unwrap();
        assert_eq!(secrets.of_mesh().len(), 2);
        assert_ne!(secrets.of_mesh(), secrets.of_registry());
    }

    /// Goal: other programs derive the same keys. Method: the values of another implementation of HKDF.
    #[test]
    fn keys_are_derived_as_the_protocol_says() {
        let secrets = parse(&line(
            MESH,
            &Seed(std::array::from_fn(|i| u8::try_from(i).unwrap())),
        ))
        .unwrap();
        let hex = |seed: &Seed| seed.0.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(&secrets.of_mesh()[0]),
            "ae72ba9c79e6960fffd0d4fd27006ca804a83fbbbcab607b4a627e8259a9afdf"
        );
        assert_eq!(
            hex(&secrets.of_registry()[0]),
            "021bdaacac39112b7ded61228b27338b721f4cc66b8a57aff54c30e46da826d4"
        );
    }

    #[test]
    fn a_registry_is_told_less_and_knows_its_own_key() {
        let secrets = parse(&format!("{}\n{}", new_line(), new_line())).unwrap();
        let told = parse(&secrets.lines_for_registries()).unwrap();
        assert_eq!(told.of_registry(), secrets.of_registry());
        assert!(told.of_mesh().is_empty());
    }

    #[test]
    fn what_is_no_secret_is_named_by_its_line_and_never_shown() {
        let good = new_line();
        let lines = |count| {
            vec![(); count]
                .into_iter()
                .map(|()| new_line() + "\n")
                .collect::<String>()
        };
        for (text, said) in [
            (String::new(), "no line"),
            ("\n \n".to_owned(), "no line"),
            ("letmein".to_owned(), "line 1"),
            (format!("{good}\ncm1_c2hvcnQ"), "line 2"),
            (format!("{good}A"), "line 1"),
            (good.replacen("cm1_", "cm2_", 1), "line 1"),
            (format!("{good}="), "line 1"),
            (format!("{good}\n{good}"), "line 2 is there twice"),
            (lines(SECRETS_MAX + 1), "more than 8 lines"),
        ] {
            let why = parse(&text).unwrap_err();
            assert!(why.contains(said), "{why}");
            assert!(
                !why.contains("letmein") && !why.contains(&good[4..]),
                "{why}"
            );
        }
        assert!(parse(&lines(SECRETS_MAX)).is_ok());
        assert!(!format!("{:?}", parse(&good).unwrap()).contains(&good[4..]));
    }

    #[test]
    fn a_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.secret");
        fs::write(&path, new_line()).unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o660, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Secrets::read(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(why) = read {
                assert!(why.to_string().contains("chmod 600"), "{why}");
            }
        }
        assert!(Secrets::read(dir.path()).is_err());
        assert!(Secrets::read(&dir.path().join("none")).is_err());
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&pipe)
            .status();
        assert!(made.unwrap().success());
        assert!(
            Secrets::read(&pipe)
                .unwrap_err()
                .to_string()
                .contains("no file")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "#".repeat(5000)).unwrap();
        assert!(
            Secrets::read(&path)
                .unwrap_err()
                .to_string()
                .contains("bytes")
        );
    }

    #[test]
    fn a_node_takes_no_line_of_a_registry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let lines = parse(&new_line()).unwrap().lines_for_registries();
        fs::write(&path, lines).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Secrets::read(&path).is_ok());
        let why = Secrets::read_of_node(&path).unwrap_err().to_string();
        assert!(why.contains("line 1") && why.contains("cm1_"), "{why}");
    }
}
