//! What was typed behind the host's name: options for ssh, and then a command, in the order in which ssh itself takes them behind a host.
//! Behind `--`, which has to stand before the host, it takes no options any more, so these go before it.

use crate::failure::{Failure, Result};

/// Options that have a value, by getopt(3)'s string in OpenSSH's ssh.c (9.9).
const WITH_VALUE: &str = "BDEFIJLOPQRSWbceilmopw";

/// The words, as options and as a command. Of a letter that is not known ssh says so itself.
///
/// # Errors
/// The last option lacks its value: ssh would take what stands behind it for that.
pub(super) fn split(words: &[String]) -> Result<(&[String], &[String])> {
    let mut options = 0;
    while let Some(word) = words.get(options) {
        if word == "--" {
            return Ok((
                words.get(..options).unwrap_or_default(),
                words.get(options + 1..).unwrap_or_default(),
            ));
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else { break };
        options += 1;
        // In one word as many letters as one likes, and the value of the last.
        if let Some(at) = letters.find(|letter| WITH_VALUE.contains(letter))
            && at + 1 == letters.len()
        {
            if options == words.len() {
                return Err(Failure::usage(
                    format!("the option {word} of ssh needs a value"),
                    "see which values it takes: man ssh",
                ));
            }
            options += 1;
        }
    }
    Ok(words.split_at_checked(options).unwrap_or((words, &[])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_command_begins() {
        for (line, options, command) in [
            ("", "", ""),
            ("ls -l", "", "ls -l"),
            ("-v ls -l", "-v", "ls -l"),
            ("-L 8000:localhost:8000", "-L 8000:localhost:8000", ""),
            ("-L8000:localhost:8000 -N", "-L8000:localhost:8000 -N", ""),
            ("-vNL 1:a:1 -o A=b true", "-vNL 1:a:1 -o A=b", "true"),
            ("-oProxyCommand=none -tt top", "-oProxyCommand=none -tt", "top"),
            ("-L -v ls", "-L -v", "ls"),
            ("-- -x", "", "-x"),
            ("-v -- ls -- x", "-v", "ls -- x"),
            ("-o -- ls", "-o --", "ls"),
            ("- x", "", "- x"),
            ("-é ls", "-é", "ls"),
        ] {
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let line = words(line);
            let (found, rest) = split(&line).unwrap();
            assert_eq!((found, rest), (words(options).as_slice(), words(command).as_slice()), "{line:?}");
        }
        for bad in [&["-L"][..], &["-v", "-No"]] {
            let words: Vec<String> = bad.iter().map(|&word| word.to_owned()).collect();
            assert!(split(&words).unwrap_err().to_string().contains("needs a value"), "{bad:?}");
        }
    }
}
