/** Runs one command beside the server. */
import { CommanderError } from "commander";
import { ConfigError } from "../config/units.ts";
import { ApiError, type Trouble } from "./api.ts";
import { ServiceError } from "./as-service.ts";
import {
  type Console,
  EXIT_FORBIDDEN,
  EXIT_NO,
  EXIT_OK,
  EXIT_UNREACHABLE,
  EXIT_USAGE,
  processConsole,
} from "./console.ts";
import { createProgram } from "./program.ts";

const EXIT_OF: Readonly<Record<Trouble, number>> = {
  unreachable: EXIT_UNREACHABLE,
  forbidden: EXIT_FORBIDDEN,
  refused: EXIT_NO,
};

/** Hosts of this machine, which no proxy of the environment reaches. */
const OWN_HOSTS = "localhost,127.0.0.1,::1,[::1]";

/** @param args the command's name and what is behind it @returns the exit code */
export async function run(args: readonly string[], out: Console = processConsole): Promise<number> {
  const { env } = process;
  const direct = [env["no_proxy"] || env["NO_PROXY"], OWN_HOSTS].filter(Boolean).join(",");
  Object.assign(env, { no_proxy: direct, NO_PROXY: direct }); // which fetch reads
  let code = EXIT_OK;
  try {
    const program = createProgram(out, (ended) => {
      code = ended;
    });
    await program.parseAsync(args, { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return EXIT_OK; // it has printed its help
      out.problem(
        `${error.message.replace(/^error: /, "").replace(/\s*\n\s*/g, " ")} (see beacon help)`,
      );
      return EXIT_USAGE;
    }
    if (error instanceof ConfigError || error instanceof ServiceError) {
      out.problem(error.message);
      return EXIT_USAGE;
    }
    if (error instanceof ApiError) {
      out.problem(error.message);
      return EXIT_OF[error.trouble];
    }
    throw error;
  }
}
