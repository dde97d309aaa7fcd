/**
 * The client of Taskyard, a durable task service: a thin layer over the generated one, which is
 * package {@code dev.taskyard.v1}.
 *
 * <p>It owns addresses, connecting, what is worth another try, and a watch that goes on exactly
 * where a broken one ended. {@link dev.taskyard.Client} is where to begin.
 */
package dev.taskyard;
