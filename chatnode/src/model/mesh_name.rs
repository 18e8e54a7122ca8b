//! The name of a mesh. Nodes of different ones are strangers, wherever they meet: at one registry,
//! at a port that changed hands, on one network.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a mesh that was given none.
pub(crate) const MESH_NAME_DEFAULT: &str = "main";
/// Longest name, in characters.
const MESH_NAME_LEN_MAX: usize = 32;

/// A name: 1 to 32 of `[A-Za-z0-9_-]`, so that it can stand in a topic, a query and a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshName(Arc<str>);

/// What was given is no name of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mesh has a name of 1 to 32 letters, digits, '_' or '-'")]
pub(crate) struct InvalidMeshName;

impl MeshName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the name of a mesh that was given none.
    pub(crate) fn is_default(&self) -> bool {
        &*self.0 == MESH_NAME_DEFAULT
    }
}

impl Default for MeshName {
    fn default() -> Self {
        Self(MESH_NAME_DEFAULT.into())
    }
}

impl FromStr for MeshName {
    type Err = InvalidMeshName;

    fn from_str(text: &str) -> Result<Self, InvalidMeshName> {
        let fits = (1..=MESH_NAME_LEN_MAX).contains(&text.len());
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if fits && text.bytes().all(is_word) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidMeshName)
        }
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_short_word() {
        for good in ["main", "a", "Team-7_blue", &"x".repeat(32)] {
            assert_eq!(good.parse::<MeshName>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a b",
            "a.b",
            "a@b",
            "a/b",
            "*",
            "ä",
            "a\n",
            &"x".repeat(33),
        ] {
            assert!(bad.parse::<MeshName>().is_err(), "{bad:?}");
        }
        assert!(MeshName::default().is_default());
    }
}
