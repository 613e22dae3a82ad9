//! Words of a shell's language.

use clap::ValueEnum;

/// A shell whose words are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// sh, bash, zsh, ksh and the like
    Sh,
    /// fish
    Fish,
}

impl Shell {
    /// The user's, by the name in SHELL.
    pub(crate) fn of_the_user() -> Self {
        let shell = std::env::var("SHELL").unwrap_or_default();
        if shell.rsplit('/').next() == Some("fish") { Self::Fish } else { Self::Sh }
    }

    /// Sets a variable for programs, or takes it away.
    pub(crate) fn line(self, name: &str, value: Option<&str>) -> String {
        match (self, value) {
            (Self::Sh, Some(value)) => format!("export {name}={}\n", self.quoted(value)),
            (Self::Sh, None) => format!("unset {name}\n"),
            (Self::Fish, Some(value)) => format!("set -gx {name} {};\n", self.quoted(value)),
            // To erase what is not there is an error in fish, and a script may look at how the last line ended.
            (Self::Fish, None) => format!("set -e {name}; or true;\n"),
        }
    }

    /// One word, whatever is in it.
    pub(crate) fn quoted(self, word: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            return word.to_owned();
        }
        match self {
            Self::Sh => format!("'{}'", word.replace('\'', r"'\''")),
            // In fish's single quotes a backslash escapes itself and the quote.
            Self::Fish => format!("'{}'", word.replace('\\', r"\\").replace('\'', r"\'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(Shell::Sh.line("A", Some("tcp://1.2.3.4:5")), "export A=tcp://1.2.3.4:5\n");
        assert_eq!(Shell::Sh.line("A", Some("it's $HOME")), "export A='it'\\''s $HOME'\n");
        assert_eq!(Shell::Sh.line("A", None), "unset A\n");
        assert_eq!(Shell::Fish.line("A", Some("it's \\ $x")), "set -gx A 'it\\'s \\\\ $x';\n");
        assert_eq!(Shell::Fish.line("A", None), "set -e A; or true;\n");
    }
}
