//! `litefleet sql`: from the command line, from standard input, or at a prompt.

use std::io::{BufRead, IsTerminal, Write};

use etcetera::BaseStrategy;
use litefleet::DatabaseName;
use rusqlite::Connection;
use rustyline::error::ReadlineError;

use super::script::{Flow, Script};
use crate::args::SqlArgs;
use crate::cancel::{self, Interruptible};
use crate::failure::{Failure, Result, quoted, visible};
use crate::session::{Access, Session, or_create};

pub(crate) fn run(session: &Session, args: &SqlArgs) -> Result<()> {
    let access = match (args.read_only, args.create) {
        (true, _) => Access::Follow,
        (false, true) => Access::Create,
        (false, false) => Access::Write,
    };
    let connection = session
        .connect(&args.name, access)
        .map_err(|f| or_create(f, "check the name with 'litefleet ls', or make it with --create"))?;
    let _interruptible = Interruptible::new(&connection);
    let mut script = Script::new(&connection, &args.params, args.format);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match &args.sql {
        Some(sql) => run_lines(&mut script, sql.as_bytes(), &mut out)?,
        None if std::io::stdin().is_terminal() => prompt(&mut script, args, &mut out)?,
        None => run_lines(&mut script, std::io::stdin().lock(), &mut out)?,
    }
    out.flush()?;
    no_open_transaction(&connection)
}

/// Runs lines until the end, `.quit`, or the first error.
fn run_lines(script: &mut Script<'_>, mut input: impl BufRead, out: &mut dyn Write) -> Result<()> {
    let mut bytes = Vec::new();
    let mut number = 0_u64;
    let mut started = 1;
    loop {
        bytes.clear();
        let read =
            input.read_until(b'\n', &mut bytes).map_err(|e| Failure::failed(format!("cannot read the script: {e}")))?;
        let at = |failure: Failure, line: u64| {
            if number > 0 { failure.context(format_args!("line {line}")) } else { failure }
        };
        if read == 0 {
            return script.finish(out).map_err(|f| at(f, started));
        }
        let only = number == 0 && bytes.last() != Some(&b'\n');
        number += 1;
        if !script.is_pending() {
            started = number;
        }
        let line = std::str::from_utf8(&bytes)
            .map_err(|_| Failure::failed(format!("line {number} of the script is not UTF-8; convert it first")))?;
        let nul = line.contains('\0').then_some(number);
        let flow = script.line(line, out);
        match flow {
            Ok(Flow::Continue) => {}
            Ok(Flow::Quit) => return Ok(()),
            // A line number says nothing where there is but one line.
            Err(f) if only || f.line().is_none() => return Err(f),
            Err(f) => return Err(f.context(format_args!("line {}", nul.unwrap_or(started)))),
        }
    }
}

fn no_open_transaction(connection: &Connection) -> Result<()> {
    if connection.is_autocommit() {
        return Ok(());
    }
    Err(Failure::failed("it ended inside a transaction, which was rolled back; end transactions with COMMIT"))
}

fn prompt(script: &mut Script<'_>, args: &SqlArgs, out: &mut dyn Write) -> Result<()> {
    let failed = |e: ReadlineError| Failure::failed(format!("cannot use the terminal: {e}"));
    let mut editor: rustyline::DefaultEditor = rustyline::DefaultEditor::new().map_err(failed)?;
    let history = etcetera::choose_base_strategy().ok().map(|base| base.data_dir().join("litefleet-history"));
    if let Some(history) = &history {
        // There is none before the first prompt.
        let _ = editor.load_history(history);
    }
    writeln!(
        out,
        "litefleet {}, SQLite {}: {}{}. '.help' lists commands.",
        env!("CARGO_PKG_VERSION"),
        rusqlite::version(),
        quoted(&args.name),
        if args.read_only { ", read-only" } else { "" }
    )?;
    out.flush()?;
    let first = first_prompt(&args.name);
    let next = format!("{:>1$} ", "...>", first.len().saturating_sub(1));
    loop {
        let line = {
            let _idle = cancel::Idle::new();
            editor.readline(if script.is_pending() { &next } else { &first })
        };
        cancel::reset();
        match line {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                match script.line(&line, out) {
                    Ok(Flow::Continue) => {}
                    Ok(Flow::Quit) => break,
                    Err(failure) => report(&failure, out)?,
                }
            }
            Err(ReadlineError::Interrupted) => script.clear(),
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(failed(e)),
        }
    }
    cancel::reset();
    if let Some(history) = &history {
        let _ = history.parent().map(std::fs::create_dir_all);
        // Without a home folder that can be written the history is lost, and nothing else.
        let _ = editor.save_history(history);
    }
    Ok(())
}

/// At the prompt an error ends the statement, not the session. A closed output does end it.
fn report(failure: &Failure, out: &mut dyn Write) -> Result<()> {
    out.flush()?;
    let Some(line) = failure.line() else {
        return Err(Failure::failed(""));
    };
    writeln!(std::io::stderr().lock(), "{line}")?;
    Ok(())
}

fn first_prompt(name: &DatabaseName) -> String {
    let name = visible(name.as_str());
    match name.char_indices().rev().nth(29) {
        Some((start, _)) if start > 0 => format!("…{}> ", &name[start..]),
        _ => format!("{name}> "),
    }
}
