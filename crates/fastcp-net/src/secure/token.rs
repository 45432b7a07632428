//! Secrets that clients and servers share, and how each proves that it knows one.
//!
//! A proof is `HMAC-SHA256(token, role || exporter)`, where the exporter is 32 bytes of keying material of the connection
//! (RFC 8446, section 7.5) under [`EXPORTER_LABEL`]. The token itself is never sent. HMAC's own state is all that is kept
//! of a token, except of those made here, which are to be printed once.

use std::fmt;

use aws_lc_rs::{hmac, rand};

use fastcp_wire::auth::{PROOF_BYTES, RUN_BYTES};

use super::hex;

/// The label of the exporter; no context.
pub(super) const EXPORTER_LABEL: &[u8] = b"EXPORTER-fastcp-token";
/// Bytes of a connection's keying material that a proof is about.
pub(super) const EXPORTER_BYTES: usize = 32;

/// A token is to be no shorter: it could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN_BYTES_MAX: usize = 1024;
/// The most tokens that one server knows.
const TOKENS_MAX: usize = 64;

/// Keying material of one connection.
pub(crate) type Exporter = [u8; EXPORTER_BYTES];
/// That the one who sends it knows the token.
pub(super) type Proof = [u8; PROOF_BYTES];

/// Who proves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prover {
    Client,
    Server,
}

/// A secret that both ends know.
#[derive(Clone)]
pub struct Token(hmac::Key);

/// Why something is no token, or no file of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It could be guessed.
    #[error("a token has at least {TOKEN_BYTES_MIN} characters")]
    Short,
    /// Nobody makes such tokens.
    #[error("a token has at most {TOKEN_BYTES_MAX} characters")]
    Long,
    /// It would not be the same everywhere.
    #[error("a token is one word of printable ASCII")]
    Characters,
    /// There is none.
    #[error("there is no token in it")]
    None,
    /// There are too many to try.
    #[error("at most {TOKENS_MAX} tokens")]
    Many,
}

impl Token {
    /// The token that was written so; blanks around it are none of it.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: &[u8]) -> Result<Self, TokenError> {
        let text = text.trim_ascii();
        match text.len() {
            0..TOKEN_BYTES_MIN => Err(TokenError::Short),
            TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX if !text.iter().all(u8::is_ascii_graphic) => Err(TokenError::Characters),
            TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text))),
            _ => Err(TokenError::Long),
        }
    }

    /// A new one, of 256 random bits, and how it is written.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn make() -> std::io::Result<(Self, String)> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no random bytes"))?;
        let text = hex(&bytes);
        Ok((Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())), text))
    }

    /// That this end of the connection with such keying material knows it.
    pub(super) fn prove(&self, prover: Prover, exporter: &Exporter) -> Proof {
        hmac::sign(&self.0, &said(prover, exporter)).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Whether that was proven. Takes the same time wherever proofs differ.
    pub(super) fn is_proven(&self, prover: Prover, exporter: &Exporter, proof: &Proof) -> bool {
        hmac::verify(&self.0, &said(prover, exporter), proof).is_ok()
    }
}

fn said(prover: Prover, exporter: &Exporter) -> Vec<u8> {
    let role: &[u8] = match prover {
        Prover::Client => b"client",
        Prover::Server => b"server",
    };
    [role, exporter].concat()
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Those that a server knows.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Vec<Token>);

impl From<Token> for Tokens {
    fn from(token: Token) -> Self {
        Self(vec![token])
    }
}

impl Tokens {
    /// Those of a file: one on each line. Empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// What is wrong with it, and on which line, from 1.
    pub fn read(bytes: &[u8]) -> Result<Self, (TokenError, usize)> {
        let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
        let tokens = lines.filter(|(_, line)| !line.is_empty() && line[0] != b'#');
        let tokens = tokens.map(|(nth, line)| Token::new(line).map_err(|error| (error, nth + 1)));
        match tokens.collect::<Result<Vec<_>, _>>()? {
            tokens if tokens.is_empty() => Err((TokenError::None, 0)),
            tokens if tokens.len() > TOKENS_MAX => Err((TokenError::Many, 0)),
            tokens => Ok(Self(tokens)),
        }
    }

    /// The first, for whoever needs but one.
    pub fn first(&self) -> Option<&Token> {
        self.0.first()
    }

    /// Which of them is proven. All are tried, so that it does not show which one it was.
    pub(super) fn proven_by(&self, exporter: &Exporter, proof: &Proof) -> Option<&Token> {
        let mut found = None;
        for token in &self.0 {
            if token.is_proven(Prover::Client, exporter, proof) {
                found = Some(token);
            }
        }
        found
    }
}

/// What all connections of one run of a client say that they belong together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RunId(pub(super) [u8; RUN_BYTES]);

impl RunId {
    /// One that no other run has.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn make() -> std::io::Result<Self> {
        let mut bytes = [0; RUN_BYTES];
        rand::fill(&mut bytes).map_err(|_| std::io::Error::other("no random bytes"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::{Prover, Token, TokenError, Tokens};

    #[test]
    fn a_proof_is_of_one_token_one_connection_and_one_end() {
        let [token, other] =
            ["0123456789abcdef", "fedcba9876543210"].map(|text| Token::new(text.as_bytes()).expect("long"));
        let proof = token.prove(Prover::Client, &[1; 32]);
        assert!(token.is_proven(Prover::Client, &[1; 32], &proof));
        assert!(!token.is_proven(Prover::Client, &[2; 32], &proof));
        assert!(!token.is_proven(Prover::Server, &[1; 32], &proof));
        assert!(!other.is_proven(Prover::Client, &[1; 32], &proof));
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn files_of_tokens() {
        let read = |text: &str| Tokens::read(text.as_bytes()).map(|Tokens(tokens)| tokens.len());
        assert_eq!(read("# two\n\n 0123456789abcdef \r\nfedcba9876543210\n"), Ok(2));
        assert_eq!(read("# none\n"), Err((TokenError::None, 0)));
        assert_eq!(read("0123456789abcdef\nshort"), Err((TokenError::Short, 2)));
        assert_eq!(read("two words are no token"), Err((TokenError::Characters, 1)));
        assert_eq!(read(&"0123456789abcdef\n".repeat(65)), Err((TokenError::Many, 0)));
        assert_eq!(read(&"x".repeat(1025)), Err((TokenError::Long, 1)));
    }

    #[test]
    fn a_token_that_is_made_is_one_that_can_be_read() {
        let (token, text) = Token::make().expect("random bytes");
        let again = Token::new(text.as_bytes()).expect("lawful");
        let proof = token.prove(Prover::Server, &[7; 32]);
        assert!(again.is_proven(Prover::Server, &[7; 32], &proof));
    }
}
