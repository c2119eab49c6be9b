//! A condition, compiled once: parsed, type-checked, its patterns prepared, its constant parts known.
//!
//! The `cel` crate parses and evaluates; it has no type checker, compiles a pattern again at every call and does not
//! bound the size of what it compiles. Those three are done here, so that what loads can only fail on what a token
//! holds: a claim that is absent or of another type.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, Value,
    common::ast::{Expr, IdedExpr, LiteralValue, SourceInfo, operators},
    parser::Parser,
};

use super::{
    Call, LocalTime, Request,
    ast::{self, TreeSize, for_each_child, names_anything, names_variable},
    pattern::Patterns,
    types::{self, Checker},
    vocabulary::{self, Named, Vocabulary},
};
use crate::identity::Principal;

/// Longest expression, in characters.
pub const MAX_CHARS: usize = 4096;
/// Most nodes of an expression's syntax tree, after macros were expanded.
pub const MAX_NODES: usize = 2000;
/// Deepest nesting of an expression's syntax tree. Evaluating a level takes up to 25 KiB of stack unoptimised.
pub const MAX_DEPTH: usize = 24;
/// Deepest nesting of brackets and of `?:`. Parsing a level takes up to 100 KiB of stack unoptimised, and a thread has
/// 2 MiB by default.
pub const MAX_NESTING: usize = 12;
/// Most operators, dots and opening brackets in an expression: each may nest one level deeper while it is parsed.
const MAX_OPERATORS: usize = 400;

/// A condition over `principal`, `request`, `findings`, `connection`, `risk` and `time` that yields a bool.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    tree: IdedExpr,
    constant: Option<bool>,
    unguarded: Option<String>,
    patterns: Patterns,
    /// What its value depends on.
    named: Named,
}

/// What is wrong with an expression, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionFault {
    /// Line within the expression, from 1.
    pub line: usize,
    /// Column within that line in characters, from 1.
    pub column: usize,
    /// What is wrong, lower case.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl Expression {
    /// Compiles `text`.
    ///
    /// # Errors
    /// Every fault at once: a text or tree over its bound, a syntax error, an unknown name, operands that do not go
    /// together, a pattern that is not a literal or too big, an expression that fails for every caller.
    pub fn compile(text: &str, vocabulary: &Vocabulary) -> Result<Self, Vec<ExpressionFault>> {
        within_bounds(text).map_err(|message| vec![fault_at(1, 1, message)])?;
        let parser = Parser::new().max_recursion_depth(MAX_NESTING as u16 + 1);
        let (mut tree, source) = parser
            .parse_with_source_info(text)
            .map_err(|errors| syntax_faults(text, errors))?;
        let mut size = TreeSize::default();
        size.measure(&tree, 1);
        if size.nodes > MAX_NODES || size.depth > MAX_DEPTH {
            let message = format!(
                "the expression is too complex: at most {MAX_NODES} parts, nested at most {MAX_DEPTH} deep"
            );
            return Err(vec![fault_at(1, 1, message)]);
        }
        let mut checker = Checker::new(vocabulary);
        checker.condition(&mut tree);
        if !checker.faults.is_empty() {
            return Err(checker
                .faults
                .into_iter()
                .map(|fault| placed(fault, text, &source))
                .collect());
        }
        let patterns = checker.patterns;
        let nothing = context(&patterns.clone().into());
        if let Some((node, error)) = failing_constant(&tree, &nothing) {
            let message = format!("this fails for every request: {}", worded(&error, text));
            let fault = types::TypeFault {
                node,
                message,
                suggestion: None,
            };
            return Err(vec![placed(fault, text, &source)]);
        }
        let constant = constant(&tree, &nothing);
        let mut named = Named::default();
        if constant.is_none() {
            ast::variables(&tree, &mut named);
        }
        let mut expression = Self {
            text: text.to_owned(),
            tree,
            constant,
            unguarded: None,
            patterns,
            named,
        };
        expression.unguarded = expression.unguarded_claim(vocabulary);
        Ok(expression)
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value, where it is the same for every request. What cannot be told without trying out values (such as
    /// `request.stream || !request.stream`) is not seen.
    #[must_use]
    pub fn constant(&self) -> Option<bool> {
        self.constant
    }

    /// What of the caller the condition needs, without which it cannot be evaluated and so denies: a claim, or the grant; `None` where it
    /// asks `has(principal.claims.x)` first. Found by trying a caller without either, so another may hide behind it.
    #[must_use]
    pub fn unguarded(&self) -> Option<&str> {
        self.unguarded.as_deref()
    }

    pub(super) fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    pub(super) fn named(&self) -> &Named {
        &self.named
    }

    /// A variable other than those of a caller by themselves, `principal` and `time`, that the condition asks for.
    #[must_use]
    pub fn asks_for_a_call(&self) -> Option<&'static str> {
        let of_the_caller = |name: &&'static str| matches!(*name, "principal" | "time");
        let mut variables = self.named.variables();
        variables.find(|name| !of_the_caller(name))
    }

    /// Whether the condition, which asks for no call, holds for `principal` at `time`.
    ///
    /// # Errors
    /// Where it cannot be evaluated; worded for the log, with nothing of the caller's.
    pub fn holds_for(&self, principal: &Principal, time: LocalTime) -> Result<bool, String> {
        let mut context = context(&Arc::new(self.patterns.clone()));
        let request = Request {
            principal,
            call: &Call::default(),
            findings: &BTreeMap::new(),
            connection: "",
            dialect: "",
            risk: 0,
            time: Some(time),
        };
        vocabulary::bind(&mut context, &request, &self.named);
        self.holds(&context)
    }

    /// Whether the condition holds. The error is worded for the log and carries nothing of the caller's.
    pub(super) fn holds(&self, context: &Context<'_, '_>) -> Result<bool, String> {
        if let Some(constant) = self.constant {
            return Ok(constant);
        }
        match Value::resolve(&self.tree, context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("the condition is not a bool".to_owned()),
            Err(error) => Err(worded(&error, &self.text)),
        }
    }

    fn unguarded_claim(&self, vocabulary: &Vocabulary) -> Option<String> {
        let principal = vocabulary::stranger();
        let findings = BTreeMap::new();
        [false, true].into_iter().find_map(|flag| {
            let call = Call {
                stream: flag,
                tools: flag,
                ..Call::default()
            };
            let mut context = context(&Arc::new(self.patterns.clone()));
            let request = Request {
                principal: &principal,
                call: &call,
                findings: &findings,
                connection: "",
                dialect: "",
                risk: 0,
                time: Some(LocalTime::default()),
            };
            vocabulary::bind(&mut context, &request, &self.named);
            match Value::resolve(&self.tree, &context) {
                Err(ExecutionError::NoSuchKey(claim)) => {
                    let claim = claim.as_str();
                    match claim == "grant" {
                        true => Some("principal.grant".to_owned()),
                        false => vocabulary
                            .claims
                            .get(claim)
                            .map(|claim| format!("principal.claims.{claim}")),
                    }
                }
                _ => None,
            }
        })
    }
}

/// An error of the evaluator without the values it met: they are the caller's.
fn worded(error: &ExecutionError, text: &str) -> String {
    match error {
        // A key that stands in the expression is the configuration's word; any other was computed.
        ExecutionError::NoSuchKey(key) if text.contains(key.as_str()) => {
            format!("no `{key}` in the request; guard it with has(…)")
        }
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::NoSuchOverload(error) => format!(
            "`{}` cannot be applied to {}",
            types::spelled(error.function()),
            error.argument_types().join(" and ")
        ),
        ExecutionError::UnexpectedType { .. } | ExecutionError::UnsupportedTargetType { .. } => {
            "a value is of another type than the expression expects".to_owned()
        }
        ExecutionError::ValuesNotComparable(..) => "two values cannot be compared".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        _ => "the expression cannot be evaluated".to_owned(),
    }
}

/// A context without variables that knows our one function.
pub(super) fn context<'v>(patterns: &Arc<Patterns>) -> Context<'static, 'v> {
    static LANGUAGE: LazyLock<Arc<Env>> =
        LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));
    let mut context = Context::with_env(Arc::clone(&LANGUAGE));
    let patterns = Arc::clone(patterns);
    let matches =
        move |text: Arc<String>, pattern: Arc<String>| match patterns.get(pattern.as_str()) {
            Some(pattern) => Ok(pattern.is_match(text.as_str())),
            None => Err(ExecutionError::undeclared_reference(types::MATCHES)),
        };
    // Fails only where the standard library has a function of that name: then no pattern would match, and every
    // expression that has one would fail to load.
    let _declared = context.add_function(types::MATCHES, matches);
    context
}

/// What is refused before the parser sees it, because the parser recurses.
fn within_bounds(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("the expression is empty".to_owned());
    }
    if text.chars().count() > MAX_CHARS {
        return Err(format!(
            "the expression is longer than {MAX_CHARS} characters"
        ));
    }
    if let Some(control) = text
        .chars()
        .find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'))
    {
        return Err(format!(
            "the expression has a control character ({})",
            control.escape_unicode()
        ));
    }
    let (mut operators, mut depth, mut deepest) = (0usize, 0usize, 0usize);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => {
                operators += 1;
                depth += 1;
                deepest = deepest.max(depth);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '?' | ':' | '.' | '&' | '|' => {
                operators += 1
            }
            _ => {}
        }
    }
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    operators += words.filter(|word| *word == "in").count();
    if deepest > MAX_NESTING {
        return Err(format!(
            "the expression is nested more than {MAX_NESTING} deep"
        ));
    }
    if operators > MAX_OPERATORS {
        return Err(format!(
            "the expression has more than {MAX_OPERATORS} operators"
        ));
    }
    Ok(())
}

fn fault_at(line: usize, column: usize, message: String) -> ExpressionFault {
    ExpressionFault {
        line,
        column,
        message,
        suggestion: None,
    }
}

fn syntax_faults(text: &str, errors: cel::ParseErrors) -> Vec<ExpressionFault> {
    // One slip makes the parser stumble several times; the first place is the one to look at.
    let first = errors.errors.into_iter().next();
    let (line, column, message) = match first {
        Some(error) => (error.pos.0, error.pos.1, plain(&error.msg)),
        None => (1, 1, "it cannot be read".to_owned()),
    };
    let lines = text.lines().count().max(1);
    let line = usize::try_from(line).unwrap_or(1).clamp(1, lines);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    vec![fault_at(
        line,
        column,
        format!("not a valid CEL expression: {message}"),
    )]
}

/// The parser's message without its dialect.
fn plain(message: &str) -> String {
    let message = message.split('\n').next().unwrap_or_default();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    // The parser lists every token it could have taken.
    let message = message.split(" expecting {").next().unwrap_or_default();
    let message = [
        "mismatched input",
        "extraneous input",
        "no viable alternative at input",
    ]
    .iter()
    .find_map(|stumble| message.strip_prefix(stumble))
    .map_or_else(|| message.to_owned(), |rest| format!("unexpected{rest}"));
    message
        .replace("'<EOF>'", "the end")
        .replace("<EOF>", "the end")
        .replace('\'', "`")
}

fn placed(fault: types::TypeFault, text: &str, source: &SourceInfo) -> ExpressionFault {
    // The parser counts bytes here.
    let offset = source
        .offset_for(fault.node)
        .map_or(0, |(start, _)| start as usize);
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    ExpressionFault {
        line,
        column,
        message: fault.message,
        suggestion: fault.suggestion,
    }
}

/// The value of a bool that does not depend on the request.
fn constant(expr: &IdedExpr, context: &Context<'_, '_>) -> Option<bool> {
    if let Expr::Literal(LiteralValue::Boolean(value)) = &expr.expr {
        return Some(*value.inner());
    }
    if let Expr::Call(call) = &expr.expr {
        let arg = |i: usize| call.args.get(i).and_then(|arg| constant(arg, context));
        let folded = match call.func_name.as_str() {
            operators::LOGICAL_NOT => arg(0).map(|value| !value),
            // A constant side decides alone: an error of the other side is absorbed.
            operators::LOGICAL_OR => match (arg(0), arg(1)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            operators::LOGICAL_AND => match (arg(0), arg(1)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            operators::CONDITIONAL => match arg(0) {
                Some(true) => arg(1),
                Some(false) => arg(2),
                None => None,
            },
            _ => None,
        };
        if folded.is_some() {
            return folded;
        }
    }
    if names_variable(expr) {
        return None;
    }
    match Value::resolve(expr, context) {
        Ok(Value::Bool(value)) => Some(value),
        _ => None,
    }
}

/// A part that names nothing, so has one value or none, and has none.
fn failing_constant(expr: &IdedExpr, context: &Context<'_, '_>) -> Option<(u64, ExecutionError)> {
    if !names_anything(expr) {
        return Value::resolve(expr, context)
            .err()
            .map(|error| (expr.id, error));
    }
    let mut failing = None;
    for_each_child(expr, &mut |child| {
        if failing.is_none() {
            failing = failing_constant(child, context);
        }
    });
    failing
}
