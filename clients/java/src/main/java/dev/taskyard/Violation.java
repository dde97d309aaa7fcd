package dev.taskyard;

/**
 * One thing that is wrong with a request, or with the state of what it is about.
 *
 * @param subject the field, such as {@code retry.max_attempts}, or the thing in question, such as a
 *     task
 * @param description what is wrong with it
 */
public record Violation(String subject, String description) {}
