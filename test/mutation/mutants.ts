/** One-line changes to a source file, each of which some test should notice. */

import {
  type BinaryExpression,
  type Block,
  type IfStatement,
  type Node,
  type SourceFile,
  SyntaxKind,
} from "typescript/unstable/ast";
import { API } from "typescript/unstable/async";

export interface Mutant {
  /** From the repository's root. */
  readonly file: string;
  readonly line: number;
  /** The replaced text: `source.slice(start, end)`. */
  readonly start: number;
  readonly end: number;
  readonly by: string;
}

const SWAPPED: Record<string, string> = {
  ...{ "<": "<=", "<=": "<", ">": ">=", ">=": ">", "===": "!==", "!==": "===" },
  ...{ "+": "-", "-": "+", "*": "+", "/": "*", "%": "+", "+=": "-=", "-=": "+=" },
  ...{
    "&": "|",
    "|": "&",
    "<<": ">>",
    ">>": "<<",
    ">>>": "<<",
    "&&": "||",
    "||": "&&",
    "??": "&&",
  },
  ...{ "++": "--", "--": "++" },
};

/** Types and imports do nothing at run time, and messages of errors are words. */
const isSkipped = ({ kind }: Node) =>
  (kind >= SyntaxKind.FirstTypeNode && kind <= SyntaxKind.LastTypeNode) ||
  SKIPPED.test(SyntaxKind[kind]!);
const SKIPPED = /^(ImportDeclaration|InterfaceDeclaration|TypeAliasDeclaration|ThrowStatement)$/;
const TEXT = /^(StringLiteral|TemplateExpression|NoSubstitutionTemplateLiteral)$/;
const FUNCTION = /^(FunctionDeclaration|MethodDeclaration|ArrowFunction|FunctionExpression)$/;
const CONDITIONAL = /^(IfStatement|WhileStatement|DoStatement)$/;
const UNARY = /^(Prefix|Postfix)UnaryExpression$/;

/** All mutants of one file. */
export function mutantsOf(file: string, root: SourceFile): Mutant[] {
  const source = root.text;
  const found: Mutant[] = [];
  const add = (start: number, end: number, by: string) =>
    found.push({ file, line: source.slice(0, start).split("\n").length, start, end, by });
  const textOf = (node: Node) => source.slice(node.getStart(root), node.end);

  const visit = (node: Node): void => {
    if (isSkipped(node)) return;
    const start = node.getStart(root);
    const kind = SyntaxKind[node.kind]!;
    if (node.kind === SyntaxKind.BinaryExpression) {
      const { left, operatorToken, right } = node as BinaryExpression;
      const by = SWAPPED[textOf(operatorToken)];
      if (by !== undefined && ![left, right].some((side) => TEXT.test(SyntaxKind[side.kind]!)))
        add(operatorToken.getStart(root), operatorToken.end, by);
    } else if (UNARY.test(kind)) {
      const operator = /^(\+\+|--)|(\+\+|--)$/.exec(textOf(node));
      if (operator !== null)
        add(start + operator.index, start + operator.index + 2, SWAPPED[operator[0]]!);
    } else if (node.kind === SyntaxKind.NumericLiteral) {
      const value = Number(textOf(node).replaceAll("_", ""));
      if (Number.isSafeInteger(value)) add(start, node.end, `${value + 1}`);
    } else if (kind === "TrueKeyword" || kind === "FalseKeyword") {
      add(start, node.end, kind === "TrueKeyword" ? "false" : "true");
    } else if (kind === "ExpressionStatement") {
      add(start, node.end, ";");
    } else if (CONDITIONAL.test(kind)) {
      const { expression } = node as IfStatement;
      add(expression.getStart(root), expression.end, `!(${textOf(expression)})`);
    } else if (FUNCTION.test(kind)) {
      const { body } = node as Node & { readonly body?: Block };
      if (body?.kind === SyntaxKind.Block)
        add(body.getStart(root) + 1, body.getStart(root) + 1, " return;");
    }
    node.forEachChild(visit);
  };
  visit(root);
  return found;
}

/**
 * The mutants of these files, by TypeScript's own parser.
 * @throws Error for a file that is no part of the project
 */
export async function allMutants(root: string, files: readonly string[]): Promise<Mutant[]> {
  const api = new API({ cwd: root });
  try {
    const snapshot = await api.updateSnapshot({ openProjects: ["tsconfig.json"] });
    const { program } = snapshot.getProjects()[0]!;
    const mutants: Mutant[] = [];
    for (const file of files) {
      const parsed = await program.getSourceFile(`${root}/${file}`);
      if (parsed === undefined) throw new Error(`${file}: no source file of tsconfig.json`);
      mutants.push(...mutantsOf(file, parsed));
    }
    return mutants;
  } finally {
    await api.close();
  }
}
